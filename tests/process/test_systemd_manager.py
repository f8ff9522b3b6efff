import logging
import os
import socket
import threading
import time
from contextlib import contextmanager

import pytest
from jeepney.low_level import HeaderFields, Parser
from jeepney.wrappers import new_error, new_method_return

from proxyd.process.systemd_manager import (
    PATIENCE_S,
    Restart,
    entries_kept,
    restart_under_way,
    start_again,
)
from tests.bed.daemon import short_directory

PATH = "/org/freedesktop/systemd1/unit/an_5fodd_2dname_2eservice"
NAME = "an_odd-name.service"
ROW = (NAME, "", "loaded", "deactivating", "stop-sigterm", "", PATH, 7, "restart", "/job/7")


def row(**different):
    names = ("name", "d", "load", "active", "sub", "following", "path", "id", "job", "job_path")
    return tuple({**dict(zip(names, ROW, strict=True)), **different}.values())


class Manager:
    """A systemd that is played, as far as it is asked."""

    def __init__(self, directory):
        self.notify = str(directory / "notify")
        self.listener = socket.create_server(str(directory / "private"), family=socket.AF_UNIX)
        self.asked = []
        self.welcome = b"OK 0123456789abcdef0123456789abcdef\r\n"
        self.unit = ("o", (PATH,))
        self.rows = ("a(ssssssouso)", ([ROW],))
        self.version = ("v", (("s", "257.13-1~deb13u1"),))
        self.answers = True

    def run(self):
        client, _ = self.listener.accept()
        with client:
            self.hello = client.recv(4096)
            client.sendall(self.welcome)
            parser = Parser()
            while received := client.recv(4096):
                parser.add_data(received)
                while (message := parser.get_next_message()) is not None:
                    client.sendall(self.answer(message) if self.answers else b"")

    def answer(self, message):
        member = message.header.fields[HeaderFields.member]
        self.asked.append((member, message.body))
        signature, body = {
            "GetUnitByPID": self.unit,
            "ListUnitsByNames": self.rows,
            "Get": self.version,
            "RestartUnit": ("o", ("/job/8",)),
        }[member]
        if signature == "error":
            return new_error(message, "org.freedesktop.systemd1.NoSuchUnit", "s", body).serialise(9)
        return new_method_return(message, signature, body).serialise(9)


@pytest.fixture
def manager():
    with short_directory() as directory:
        made = Manager(directory)
        thread = threading.Thread(target=made.run)
        thread.start()
        yield made
        with made.listener, socket.socket(socket.AF_UNIX) as last:
            last.connect(str(directory / "private"))  # if nobody has come
        thread.join()


@contextmanager
def quickly():
    began = time.monotonic()
    yield
    assert time.monotonic() - began < PATIENCE_S / 2


def test_a_restart_is_told_from_an_end(manager):
    address = os.fsencode(manager.notify)
    assert restart_under_way(address, 42) == Restart(closes_apart=True)
    assert manager.asked == [
        ("GetUnitByPID", (42,)),
        ("ListUnitsByNames", ([NAME],)),
        ("Get", ("org.freedesktop.systemd1.Manager", "Version")),
    ]
    # In one go: systemd leaves unlooked at what comes together with the end of its handshake.
    assert manager.hello.startswith(b"\0AUTH EXTERNAL ")
    assert manager.hello.endswith(b"\r\nBEGIN\r\n")


@pytest.mark.parametrize("job", ["stop", "", "start", "reload", "Restart"])
def test_any_other_job_is_an_end(manager, job):
    manager.rows = ("a(ssssssouso)", ([row(job=job)],))
    assert restart_under_way(manager.notify, 42) is None


@pytest.mark.parametrize(
    ("said", "closes_apart"),
    [
        ("252.39-1~deb12u2", False),
        ("256.9", False),
        ("257", True),
        ("v258.1", True),
        ("1000", True),
        ("", False),
        ("x257", False),
        ("٢٥٧", False),
    ],
)
def test_which_systemds_close_apart(manager, said, closes_apart):
    manager.version = ("v", (("s", said),))
    assert restart_under_way(manager.notify, 42) == Restart(closes_apart=closes_apart)


@pytest.mark.parametrize(
    "different",
    [
        {"unit": ("error", ("none",))},
        {"unit": ("s", (PATH,))},
        {"unit": ("o", ("/elsewhere",))},
        {"rows": ("a(ssssssouso)", ([],))},
        {"rows": ("a(ssssssouso)", ([row(path="/another")],))},
        {"rows": ("s", ("x",))},
        {"welcome": b"REJECTED EXTERNAL\r\n"},
        {"welcome": b"x" * 300},
        {"version": ("s", ("257",))},
    ],
    ids=str,
)
def test_an_answer_that_says_nothing_is_an_end_and_one_line(manager, different, caplog):
    caplog.set_level(logging.INFO)
    for name, value in different.items():
        setattr(manager, name, value)
    with quickly():
        assert restart_under_way(manager.notify, 42) is None
    assert len(caplog.messages) == 1
    assert "systemd does not say whether this is a restart" in caplog.messages[0]


def test_it_says_how_much_it_keeps(manager):
    manager.version = ("v", (("u", 3),))
    assert entries_kept(manager.notify, 42) == 3
    assert manager.asked[1] == ("Get", ("org.freedesktop.systemd1.Service", "NFileDescriptorStore"))


@pytest.mark.parametrize("said", [("v", (("s", "3"),)), ("u", (3,)), ("error", ("none",))], ids=str)
def test_where_it_does_not_nobody_knows(manager, said, caplog):
    caplog.set_level(logging.INFO)
    manager.version = said
    assert entries_kept(manager.notify, 42) is None
    assert len(caplog.messages) == 1


def test_it_is_made_to_start_the_service_again(manager):
    manager.rows = ("a(ssssssouso)", ([row(job="")],))
    assert start_again(manager.notify, 42)
    assert manager.asked[-1] == ("RestartUnit", (NAME, "replace"))


@pytest.mark.parametrize("job", ["stop", "restart", "start"])
def test_not_where_it_has_something_else_to_do(manager, job):
    manager.rows = ("a(ssssssouso)", ([row(job=job)],))
    assert not start_again(manager.notify, 42)
    assert manager.asked[-1][0] == "ListUnitsByNames"


def test_a_systemd_that_does_not_answer_is_waited_for_two_seconds(manager):
    manager.answers = False
    began = time.monotonic()
    assert restart_under_way(manager.notify, 42) is None
    assert PATIENCE_S <= time.monotonic() - began < PATIENCE_S + 1


@pytest.mark.parametrize("address", ["", b"", b"\0abstract", "@abstract", "relative/notify"])
def test_who_was_not_started_by_systemd_asks_nobody(address):
    assert restart_under_way(address, os.getpid()) is None


def test_a_systemd_that_is_not_there_is_an_end(tmp_path):
    with quickly():
        assert restart_under_way(str(tmp_path / "notify"), 42) is None
