"""Results that no run has made: seeded, so that they are the same each time, and drawn once."""

import random
from dataclasses import replace
from functools import cache

from loadtest.figures import Latencies
from loadtest.machine import Machine
from loadtest.results import Interval, ProcessUse, Result, TargetResult, ToolUse, Verdict

MACHINE = Machine(
    cores=2,
    cpu_model="A processor",
    kernel="Linux 6.1",
    python="3.11.2",
    tool_version="0.1.0",
    commit="0123456789abcdef0123456789abcdef01234567",
    command="proxyd-loadtest run --target direct=unix:/run/a --target proxyd=tls:host:16514",
    load=0.31,
)


def a_target(name="direct", seconds=30, rate=1000, typical_us=80, errors=(), seed=1):
    """Log-normal latencies, with a stall in the middle; `errors` go to every tenth second."""
    drawn = _drawn(name, seconds, rate, typical_us, errors, seed)
    calls = again(drawn.calls)
    return replace(
        drawn,
        calls=calls,
        connects=again(drawn.connects),
        procedures=dict.fromkeys(drawn.procedures, calls),
        intervals=[replace(one, errors=dict(one.errors)) for one in drawn.intervals],
        errors=dict(drawn.errors),
        processes=[replace(one) for one in drawn.processes],
    )


def again(latencies):
    """The same, for a test to change."""
    made = Latencies()
    made.absorb(latencies)
    return made


@cache
def _drawn(name, seconds, rate, typical_us, errors, seed):
    dice = random.Random(seed)
    target = TargetResult(
        name=name,
        address=f"unix:/run/{name}",
        uri="test:///default",
        elapsed_s=float(seconds),
        connects=Latencies(int(dice.lognormvariate(13, 0.3)) for _ in range(64)),
    )
    for second in range(seconds):
        slow = 20 if second == seconds // 2 and seconds > 2 else 1
        samples = [
            int(dice.lognormvariate(0, 0.35) * typical_us * 1000)
            * (slow if dice.random() < 0.1 else 1)
            for _ in range(int(rate * dice.uniform(0.97, 1)))
        ]
        part = Latencies(samples)
        target.calls.absorb(part)
        one = Interval(
            begins_s=float(second),
            length_s=1.0,
            rate=float(rate),
            calls=len(samples),
            connects=2,
            bytes_up=len(samples) * 28,
            bytes_down=len(samples) * 36,
            p50_ns=part.percentile(50) if samples else None,
            p99_ns=part.percentile(99) if samples else None,
            max_ns=part.highest if samples else None,
        )
        for error in errors if second % 10 == 3 else ():
            one.errors[error] = dice.randint(1, 9)
            target.errors[error] = target.errors.get(error, 0) + one.errors[error]
        target.intervals.append(one)
        target.bytes_up += one.bytes_up
        target.bytes_down += one.bytes_down
    if target.calls.count:
        target.procedures = {"CONNECT_GET_LIB_VERSION": target.calls}
    target.processes = [
        ProcessUse(
            label="pid",
            pids=(7,),
            cpu_s=seconds / 5,
            rss_kib=25000,
            rss_kib_before=24000,
            descriptors=40,
            descriptors_before=None,
        )
    ]
    return target


def a_result(*targets, **more):
    given = {
        "scenario": "run",
        "machine": MACHINE,
        "started": "2026-01-02T03:04:05+00:00",
        "plan": {"rate": 1000, "connections": 4, "mix": {"small": 1}, "closed": None},
        "targets": list(targets),
        "tool": ToolUse(workers=2, cpu_s=3.2, busiest_share=0.34, late_p99_ns=81_000),
    }
    return Result(**(given | more))


def a_busy_result():
    """Three targets, errors, missed thresholds, a tool that is the limit."""
    proxyd = a_target("proxyd", typical_us=130, errors=("timeout", "reset"), seed=2)
    proxyd.address, proxyd.cipher = "tls:host:16514", "TLSv1.3 TLS_AES_256_GCM_SHA384"
    return a_result(
        a_target(),
        proxyd,
        a_target("libvirtd", typical_us=110, seed=3),
        tool=ToolUse(
            workers=2, cpu_s=55, busiest_share=0.97, bottleneck="97% of a core was in use"
        ),
        verdicts=[
            Verdict(text="p99<2ms", target="direct", value=181_000.0, met=True),
            Verdict(text="errors<0.1%", target="proxyd", value=0.0123, met=False),
        ],
        notes=["direct: the clock went back once"],
    )
