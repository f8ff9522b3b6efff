"""Status and clients on a terminal: whole screens, and nothing of a client's reaches it raw."""

import pytest

from proxyd.admin import document
from proxyd.cli import screens as showing
from tests.cli.terminal import printed
from tests.fakes.documents import NEGOTIATING, OPEN, STATUS, status_with

HOSTILE = [
    "\x1b]0;title\x07",
    "\x1b[2J",
    "\x9b31m",
    "a\r\nb\tc\0",
    "\u202eltr",
    "\udcff\ud800",
    "\u200b\ufeff\u2028",
    "[bold red]markup[/] :smile:",
    "é" * 20_000,
    " " * 5000 + "x",
    "",
]

WHOLE_TABLE = """\
ID  FROM          WHO            URI            DAEMON       AGE  IDLE  CALLS       UP      DOWN
17  libvirt-sock  uid 0 (root)   lxc:///system  virtqemud  1m15s  0.2s     12  1.5 KiB  50.0 MiB
18  libvirt-sock  not known yet  negotiating                0.0s            0      0 B       0 B
2 clients"""


def status_view(found):
    return showing.status_view(document.read(document.Status, found))


def clients_view(found):
    return showing.clients_view([document.read(document.Client, each) for each in found])


def attention(found):
    return showing.attention(document.read(document.Status, found))


def test_a_whole_status():
    assert (
        printed(status_view(STATUS))
        == """\
proxyd 0.1.0  serving for 1h02m, pid 4242
configuration /etc/libvirt/virtproxyd.conf
clients 2 of 5000, unauthenticated 1 of any number by each user or way in, administrators 1 of 20
sessions 1, calls 12, errors 3, up 1.5 KiB, down 5.0 GiB
process 4240, which has handed over, serves 1 of them to their end
LISTENER                     ADDRESS                             AUTHENTICATION  CLIENTS
libvirt-sock-ro (read-only)  /run/libvirt/libvirt-sock-ro        polkit          2
virtproxyd-admin-sock        /run/libvirt/virtproxyd-admin-sock  uid
DAEMON     SOCKET                       SESSIONS  ANSWERS
virtqemud  /run/libvirt/virtqemud-sock  1         in 0.5 ms
virtlxcd   /run/libvirt/virtlxcd-sock   0         no answer within 2 s
CERTIFICATE  OF       KEY        FILE                 ENDS
server       CN=kvm1  ML-DSA-65  /pki/servercert.pem  2027-01-15, in 12 days
ca           CN=ca                                    2030-03-17, in 400 days
crl          CN=ca                                    never
! virtlxcd does not answer: no answer within 2 s
! the server certificate CN=kvm1 ends in 12 days: renew it"""
    )


def test_a_status_with_partings_says_how_they_went():
    partings = {"now": 2, "orderly": 40, "daemon_gone": 0, "overdue": 1}
    partings |= {"displaced": 0, "cut_off": 3}
    first, *others = STATUS["backends"]
    found = status_with(backends=[{**first, "partings": partings}, *others])
    shown = " ".join(printed(status_view(found)).split())
    assert "DAEMON SOCKET SESSIONS PARTINGS ANSWERS" in shown
    assert "2 now, 40 orderly, 1 overdue, 3 cut off" in shown.replace(" in 0.5 ms", "")


def test_a_whole_table_of_clients():
    local = {"listener": "libvirt-sock", "address": "", "readonly": False}
    opened = {**OPEN, **local, "who": "uid 0 (root)", "uri": "lxc:///system"}
    assert printed(clients_view([opened, {**NEGOTIATING, **local}]), width=98) == WHOLE_TABLE


def test_a_tls_client_is_shown_with_what_its_word_is_taken_on():
    client = {**OPEN, "authentication": "x509 + allowed list + sasl GSSAPI"}
    shown = printed(clients_view([client]), width=240)
    assert "x509 'CN=joe', by x509 + allowed list + sasl GSSAPI" in shown


def test_who_may_only_read_and_where_it_came_from_are_shown():
    shown = printed(clients_view([OPEN, NEGOTIATING]), width=140)
    assert "17  tls 127.0.0.1:16514 192.0.2.7:40123  x509 'CN=joe'  qemu:///system" in shown
    assert "18  libvirt-sock-ro (read-only)          not known yet  negotiating" in shown


# What a terminal of 80 columns has to show whole: it is copied and searched for.
LONG = {
    "listener": "tls [2001:db8:1234:5678:9abc:def0:1234:5678]:16514",
    "address": "[2001:db8:1234:5678:9abc:def0:1234:ffff]:40123",
    "who": "x509 'C=DE,O=Example,OU=Virtualisation,CN=host.example.org', by x509 + allowed list",
    "uri": "qemu+tls:///system?more=of-it",
}


@pytest.mark.parametrize("width", [60, 80, 100, 120, 240])
def test_no_address_is_broken_on_any_terminal(width):
    shown = printed(clients_view([OPEN, {**OPEN, **LONG}]), width=width)
    assert max(len(line) for line in shown.splitlines()) <= width
    addresses = [*LONG["listener"].split(" "), LONG["address"], LONG["uri"]]
    for whole in ("127.0.0.1:16514", "192.0.2.7:40123", "qemu:///system", *addresses):
        assert whole in shown
    joined = " ".join(shown.split())
    for part in ("CN=joe", "virtqemud", "1.5 KiB", "50.0 MiB", "CN=host.example.org"):
        assert part in joined
    assert "…" not in shown


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_no_path_of_a_status_is_broken_on_any_terminal(width):
    long = "/run/user/1000/some/where/libvirt/virtqemud-sock"
    found = status_with(
        backends=[{**STATUS["backends"][1], "socket": long}, STATUS["backends"][0]],
        certificates=[{**STATUS["certificates"][0], "file": "/etc/pki/libvirt/servercert.pem"}],
    )
    shown = printed(status_view(found), width=width)
    assert max(len(line) for line in shown.splitlines()) <= width
    for whole in (
        long,
        "/run/libvirt/virtqemud-sock",
        "/run/libvirt/libvirt-sock-ro",
        "/run/libvirt/virtproxyd-admin-sock",
        "/etc/pki/libvirt/servercert.pem",
    ):
        assert whole in shown


def test_nobody_is_told_in_words():
    assert printed(clients_view([])) == "nobody is connected"
    assert printed(clients_view([OPEN])).endswith("\n1 client")


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("width", [80, 240])
def test_nothing_that_a_client_chose_reaches_the_terminal_raw(hostile, width):
    client = {**OPEN, "who": hostile, "uri": hostile, "backend": hostile, "address": hostile}
    shown = printed(clients_view([client, OPEN]), width=width)

    assert all(line.isprintable() for line in shown.splitlines())
    assert shown.replace("…", "").isascii() or hostile[0] == "é"
    assert max(len(line) for line in shown.splitlines()) <= width
    assert len(shown) < 30_000
    assert shown.endswith("2 clients")


@pytest.mark.parametrize("hostile", HOSTILE)
def test_nothing_that_a_certificate_or_an_error_says_reaches_it_raw_either(hostile):
    found = status_with(
        last_reload={"at": 0.0, "succeeded": False, "text": hostile},
        configuration=hostile,
        certificates=[{**STATUS["certificates"][0], "subject": hostile}],
        backends=[{**STATUS["backends"][1], "trouble": hostile, "socket": hostile}],
        listeners=[{**STATUS["listeners"][0], "address": hostile, "name": hostile}],
    )
    for shown in (printed(status_view(found), width=80), "\n".join(attention(found))):
        assert all(line.isprintable() for line in shown.splitlines())
        assert len(shown) < 10_000


def test_a_name_is_no_markup():
    assert "[bold red]x[/]" in printed(clients_view([{**OPEN, "who": "[bold red]x[/]"}]))


def test_colours_are_shown_on_a_terminal_unless_the_user_wants_none(monkeypatch, capsys):
    def shown():
        showing.console().print(status_view(STATUS))
        return capsys.readouterr().out

    assert "\x1b" not in shown()
    for name in ("NO_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("FORCE_COLOR", "1")  # as if it were a terminal
    assert "\x1b[1;31m" in shown()
    monkeypatch.setenv("NO_COLOR", "")
    assert "31m" not in shown()


# What somebody should look at


def test_of_a_daemon_that_is_well_nothing_is_to_be_looked_at():
    assert attention(status_with(backends=[], certificates=[])) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"answers": False, "trouble": "no"}, ["virtqemud does not answer: no"]),
        ({"answers": False, "present": False, "sessions": 0}, []),
        (
            {"answers": False, "present": False, "sessions": 1, "trouble": "no"},
            ["virtqemud does not answer: no"],
        ),
        ({"answers": True}, []),
    ],
)
def test_a_daemon_that_does_not_answer_matters_if_it_should_be_there(changes, says):
    found = status_with(certificates=[], backends=[{**STATUS["backends"][0], **changes}])
    assert attention(found) == says


def test_a_daemon_that_was_not_asked_is_well():
    unasked = {"daemon": "virtqemud", "socket": "/x", "present": False, "sessions": 0}
    found = status_with(certificates=[], backends=[unasked, {**unasked, "present": True}])
    assert attention(found) == []
    shown = printed(status_view(found))
    assert "no socket" in shown
    assert "not asked" in shown


@pytest.mark.parametrize(
    ("days_left", "says"),
    [(-3.0, "ended 3 days ago"), (0.4, "ends in 0 days"), (29.9, "ends in 30 days")],
)
def test_a_certificate_that_ends_soon_is_to_be_renewed(days_left, says):
    ends = {**STATUS["certificates"][0], "days_left": days_left}
    found = status_with(backends=[], certificates=[ends])
    assert attention(found) == [f"the server certificate CN=kvm1 {says}: renew it"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"last_reload": {"at": 0, "succeeded": False, "text": "no"}},
            "the last reload failed: no",
        ),
        ({"last_reload": {"at": 0, "succeeded": True, "text": "yes"}}, None),
        ({"limits": {**STATUS["limits"], "clients": 5000}}, "max_clients is reached"),
        (
            {
                "limits": {
                    **STATUS["limits"],
                    "waiting": 7,
                    "most_places": [{"holder": "10.1.2.3", "clients": 256}],
                }
            },
            "7 clients wait for others to prove who they are (most are of 10.1.2.3 256)",
        ),
        ({"log": {"dropped": 1, "lost": 0}}, "log lines were lost"),
        ({"log": {"dropped": 0, "lost": 1}}, "log lines were lost"),
        ({"relay": {**STATUS["relay"], "own_errors": 1}}, "errors of proxyd's own"),
    ],
)
def test_other_troubles_are_a_line_each(changes, says):
    lines = attention(status_with(backends=[], certificates=[], **changes))
    assert len(lines) == (says is not None)
    assert says is None or says in lines[0]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0.0s"),
        (59.94, "59.9s"),
        (60, "1m00s"),
        (3599, "59m59s"),
        (3600, "1h00m"),
        (86399, "23h59m"),
        (86400, "1d00h"),
        (1e9, "11574d01h"),
    ],
)
def test_spans_are_short(seconds, shown):
    assert f"for {shown}, pid" in printed(status_view(status_with(uptime_s=seconds)))


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024**5, "1.0 PiB"),
        (1024**6, "1024.0 PiB"),
    ],
)
def test_sizes_are_short(count, shown):
    assert printed(clients_view([{**OPEN, "bytes_down": count}])).splitlines()[1].endswith(shown)
