"""What a proxyd has logged, waited for."""

import signal

from tests.bed.waiting import wait_until


def log_line(front, part):
    """The line of the log that has this in it; waits for it."""
    return wait_until(
        lambda: [line for line in front.log_text().splitlines() if part in line],
        10,
        f"the log says {part!r}",
    )[-1]


def reload(front):
    before = front.log_text().count("configuration reloaded")
    front.daemon.send(signal.SIGHUP)
    wait_until(
        lambda: front.log_text().count("configuration reloaded") > before, 10, "it has reloaded"
    )
