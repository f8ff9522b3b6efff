"""What of a changed file waits for a restart."""

from dataclasses import replace

from proxyd.config.restart import FIXED_AT_START, waiting_for_restart
from proxyd.config.settings import resolve

BEFORE = resolve({}, privileged=True)


def test_what_is_built_into_sockets_waits_and_nothing_else():
    after = replace(BEFORE, listen_tls=True, tcp_port="1", max_clients=7)
    assert set(waiting_for_restart(BEFORE, after)) == {"listen_tls", "tcp_port"}
    assert waiting_for_restart(BEFORE, BEFORE) == ()
    assert {"listen_tls", "tcp_port"} <= set(FIXED_AT_START)
