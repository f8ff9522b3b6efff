"""A reading in which every family has something to show."""

from proxyd.admin import document
from proxyd.metrics.reading import DaemonReading, Reading, ThreadReading, Times

PARTINGS = document.Partings(now=1, orderly=2, daemon_gone=3, overdue=4, displaced=5, cut_off=6)
TIMES = Times(bounds_s=[0.001, 0.1], counts=[3, 2, 1], sum_s=1.5)


def status(**changes):
    found = {
        "version": "1.2.3",
        "pid": 1,
        "state": "serving",
        "program": document.Program(outdated=(), installed="1.2.3", remedy=""),
        "started_at": 1000.5,
        "uptime_s": 1.0,
        "configuration": "/etc/x",
        "idle_exit_s": 0,
        "listeners": (),
        "limits": document.Limits(
            clients=7,
            max_clients=100,
            unauthenticated=2,
            max_unauthenticated=20,
            admin_clients=1,
            max_admin_clients=5,
            descriptor_room=400,
            waiting=3,
            silent=4,
        ),
        "backends": (
            document.Backend(
                daemon="virtqemud", socket="/run/q", present=True, sessions=2, partings=PARTINGS
            ),
            document.Backend(daemon="virtxend", socket="/run/x", present=False, sessions=0),
        ),
        "certificates": (
            document.Certificate(
                role="server", file="/etc/s.pem", subject="CN=s", expires_at=2e9, days_left=1.0
            ),
            document.Certificate(role="crl", subject="CN=c", expires_at=None, days_left=None),
        ),
        "last_reload": document.Reload(at=1500.0, succeeded=False, text="no"),
        "relay": document.Relay(
            threads=2,
            sessions=2,
            calls=9,
            bytes_up=1,
            bytes_down=2,
            errors=1,
            tls_in_kernel=0,
            own_errors=6,
        ),
        "log": document.LogLosses(dropped=8, lost=9),
    }
    return document.Status(**(found | changes))


def reading(**changes):
    found = {
        "status": status(),
        "states": {("libvirt-sock", "virtqemud", "open"): 2, ("tls [::1]:1", "", "negotiating"): 1},
        "opened": {("libvirt-sock", "virtqemud"): 5},
        "refused": {"tls": 4, "no_place": 0},
        "login_delay_s": 2.5,
        "denied_calls": 11,
        "session_time": {"virtqemud": TIMES},
        "opening_time": {"virtqemud": TIMES},
        "handshake_time": {"tls [::1]:1": TIMES},
        "daemons": [
            DaemonReading(
                daemon="virtqemud",
                replies={"domain_get_info": 6},
                failures={"domain_get_info": 2},
                bytes_up=100,
                bytes_down=2000,
                under_way=3,
                streams=4,
                call_time={"domain_get_info": TIMES},
            )
        ],
        "threads": [ThreadReading(name="plain", sessions=2, turn_time=TIMES)],
    }
    return Reading(**(found | changes))
