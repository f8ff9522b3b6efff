"""proxyd drain's lines, against a daemon of which somebody leaves each time that it is asked."""

import json

import pytest

from proxyd.admin import document
from proxyd.cli import drain
from proxyd.cli.main import main
from tests.admin.live import live_admin
from tests.bed.daemon import short_directory
from tests.fakes.documents import STATUS

SINCE = 1.7e9


class Emptying:
    """What a view tells of its drain; `ends_at` is when somebody else ends it."""

    def __init__(self, view, left, ends_at=-1):
        self.left, self.ends_at = left, ends_at
        self.asked = 0
        view.drain, view.status = self.drain, self.status

    def _now(self):
        return document.Drain(since=SINCE, left=self.left, negotiating=min(1, self.left))

    def drain(self, *, on):
        return document.Drained(changed=True, drain=self._now() if on else None)

    async def status(self, **_):
        self.asked += 1
        self.left -= 1
        found = document.read(document.Status, STATUS)
        object.__setattr__(found, "drain", None if self.left == self.ends_at else self._now())
        return found


@pytest.fixture
def live(monkeypatch):
    monkeypatch.setattr(drain, "_LOOK_EVERY_S", 0.001)
    with short_directory() as directory, live_admin(directory) as made:
        yield made


def ask(live, *words):
    return main(["drain", "--socket", str(live.path), *words])


def test_a_thousand_who_leave_are_few_lines_where_no_terminal_is(live, capsys):
    told = Emptying(live.host, 1000)
    assert ask(live) == 0
    said = capsys.readouterr()
    assert said.err == ""
    first, second, *middle, last = said.out.splitlines()
    assert first.startswith("nobody new is let in from now on; `")
    assert (second, last) == ("1000 sessions left (1 not open yet)", "nobody is left")
    assert told.asked == 1000
    assert len(middle) <= 1  # each ten seconds, on a machine that is very busy


@pytest.mark.parametrize("left", [0, 3])
def test_for_machines_it_is_one_object(live, capsys, left):
    Emptying(live.host, left)
    assert ask(live, "--json") == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == {"draining": True, "changed": True, "left": 0}
    assert said.err == ""


def test_nobody_is_waited_for_when_somebody_else_has_ended_it(live, capsys):
    told = Emptying(live.host, 5, ends_at=3)
    assert ask(live) == 1
    said = capsys.readouterr()
    assert "somebody has ended the drain meanwhile" in said.err
    assert "nobody is left" not in said.out
    assert told.asked == 2


def test_without_waiting_it_is_asked_once(live, capsys):
    told = Emptying(live.host, 5)
    assert ask(live, "--wait", "0") == 1
    assert "5 sessions left (1 not open yet) after 0 s: " in capsys.readouterr().err
    assert told.asked == 0
