"""Level, filters and outputs: from the configuration, and as an administrator changes them."""

import logging
import threading
from dataclasses import replace

import pytest
import trio
import trio.testing

from proxyd.config.logstrings import LogFilter, LogLevel, LogOutput, parse_filters, parse_outputs
from proxyd.daemon.log_settings import LogSettings
from proxyd.log.logs import Logs
from proxyd.log.outputs import LogOutputError, LogPlaces
from proxyd.process.exit_status import Exit, StartFailed
from tests.bed.waiting import wait_until
from tests.daemon.parts import DEADLINE_S, options


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """As they are after the start with two outputs and a filter."""
    monkeypatch.setattr("proxyd.daemon.log_settings.journal_is_available", lambda: False)
    asked = options(tmp_path)
    made = LogSettings(Logs(places=LogPlaces(journal=str(tmp_path / "no-journal"))), asked)
    configure(tmp_path, 'log_outputs = "1:file:log 4:file:errors"\nlog_filters = "1:rpc"')
    made.start(asked.source.load())
    yield made
    assert made.logs.close(DEADLINE_S)


def configure(directory, text):
    (directory / "conf").write_text(text)


def in_file(path, text):
    """Waits for the writer's thread."""
    return wait_until(lambda: path.exists() and text in path.read_text(), DEADLINE_S, text)


def test_the_configuration_is_in_force_and_files_lie_where_the_daemon_was_started(
    settings, tmp_path, monkeypatch
):
    monkeypatch.chdir("/")  # as in the background
    assert settings.level == LogLevel.WARNING
    assert settings.filters == tuple(parse_filters("1:rpc"))
    assert settings.outputs == (
        LogOutput(LogLevel.DEBUG, "file", f"{tmp_path}/log"),
        LogOutput(LogLevel.ERROR, "file", f"{tmp_path}/errors"),
    )
    logging.getLogger("rpc.x").debug("seen")
    assert in_file(tmp_path / "log", "seen")


async def test_filters_take_effect_and_leave_outputs_as_they_are(settings, tmp_path):
    outputs = settings.outputs
    await settings.set_filters(parse_filters("1:auth 4:rpc"))
    logging.getLogger("rpc.x").warning("not this")
    logging.getLogger("auth.x").debug("but this")
    await trio.to_thread.run_sync(in_file, tmp_path / "log", "but this")
    assert "not this" not in (tmp_path / "log").read_text()
    assert settings.filters == (LogFilter(1, "*auth*"), LogFilter(4, "*rpc*"))
    assert settings.outputs == outputs


async def test_no_filters_leave_the_level_alone(settings, tmp_path):
    await settings.set_filters([])
    logging.getLogger("rpc.x").info("not this")
    logging.getLogger("rpc.x").warning("but this")
    await trio.to_thread.run_sync(in_file, tmp_path / "log", "but this")
    assert "not this" not in (tmp_path / "log").read_text()
    assert settings.filters == ()


async def test_outputs_take_effect_with_relative_paths_made_absolute(
    settings, tmp_path, monkeypatch
):
    monkeypatch.chdir("/")
    await settings.set_outputs(parse_outputs(f"1:file:/{tmp_path}/there 3:stderr"))
    assert [each.target for each in settings.outputs] == [f"/{tmp_path}/there", None]

    await settings.set_outputs([LogOutput(LogLevel.DEBUG, "file", "here")])

    assert settings.outputs == (LogOutput(LogLevel.DEBUG, "file", f"{tmp_path}/here"),)
    logging.getLogger("rpc.x").debug("seen")
    await trio.to_thread.run_sync(in_file, tmp_path / "here", "seen")
    assert settings.filters == tuple(parse_filters("1:rpc"))


async def test_no_outputs_are_the_default_one(settings):
    await settings.set_outputs([])
    assert settings.outputs == (LogOutput(LogLevel.WARNING, "stderr"),)


@pytest.mark.parametrize("where", ["/proc/nonexistent/log", "."])
async def test_an_output_that_cannot_be_opened_changes_nothing(settings, tmp_path, where):
    before = settings.level, settings.filters, settings.outputs
    unopenable = [LogOutput(1, "file", "another"), LogOutput(1, "file", where)]

    with pytest.raises(LogOutputError, match="cannot open the log file"):
        await settings.set_outputs(unopenable)

    assert (settings.level, settings.filters, settings.outputs) == before
    logging.getLogger("rpc.x").debug("still here")
    await trio.to_thread.run_sync(in_file, tmp_path / "log", "still here")


async def test_filters_that_cannot_be_set_for_want_of_an_output_change_nothing(
    settings, tmp_path, monkeypatch
):
    before = settings.filters
    monkeypatch.setattr(
        settings, "outputs", (LogOutput(LogLevel.DEBUG, "file", f"{tmp_path}/gone/log"),)
    )
    with pytest.raises(LogOutputError):
        await settings.set_filters(parse_filters("1:auth"))
    assert settings.filters == before


async def test_the_configuration_read_again_replaces_what_was_changed(settings, tmp_path):
    await settings.set_filters(parse_filters("1:auth"))
    configure(tmp_path, 'log_level = 1\nlog_outputs = "1:file:new"')

    await settings.read_again(options(tmp_path).source.load())

    assert (settings.level, settings.filters) == (LogLevel.DEBUG, ())
    assert settings.outputs == (LogOutput(LogLevel.DEBUG, "file", f"{tmp_path}/new"),)


async def test_a_configuration_whose_output_cannot_be_opened_changes_nothing(settings, tmp_path):
    before = settings.level, settings.filters, settings.outputs
    configure(tmp_path, 'log_level = 1\nlog_filters = "1:auth"\nlog_outputs = "1:file:/no/log"')

    with pytest.raises(StartFailed, match="cannot log: ") as failed:
        await settings.read_again(options(tmp_path).source.load())

    assert failed.value.status == Exit.FAILED
    assert (settings.level, settings.filters, settings.outputs) == before


async def test_doubts_about_the_configuration_are_logged_as_it_says(settings, tmp_path):
    configure(tmp_path, 'log_outputs = "1:file:new"\nmax_client = 1')
    await settings.read_again(options(tmp_path).source.load())
    await trio.to_thread.run_sync(in_file, tmp_path / "new", 'unknown key "max_client"')


async def test_of_two_changes_at_one_time_none_undoes_the_other(settings, tmp_path, monkeypatch):
    began, goes_on = threading.Event(), threading.Event()
    apply = settings.logs.apply

    def slow(*arguments):
        began.set()
        assert goes_on.wait(DEADLINE_S)
        apply(*arguments)

    monkeypatch.setattr(settings.logs, "apply", slow)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(settings.set_outputs, [LogOutput(LogLevel.DEBUG, "file", "new")])
        await trio.to_thread.run_sync(began.wait, DEADLINE_S)
        nursery.start_soon(settings.set_filters, parse_filters("1:auth"))
        await trio.testing.wait_all_tasks_blocked(0.01)
        goes_on.set()

    assert settings.outputs == (LogOutput(LogLevel.DEBUG, "file", f"{tmp_path}/new"),)
    assert settings.filters == tuple(parse_filters("1:auth"))


@pytest.mark.parametrize(("privileged", "mode"), [(True, 0o755), (False, 0o700)])
def test_the_directory_of_the_usual_log_file_is_made(tmp_path, monkeypatch, privileged, mode):
    monkeypatch.setattr("proxyd.daemon.log_settings.journal_is_available", lambda: False)
    asked = options(tmp_path, privileged=privileged)
    log_file = tmp_path / "cache" / "libvirt" / "virtproxyd.log"
    asked = replace(asked, background=True, places=replace(asked.places, log_file=str(log_file)))
    configure(tmp_path, "")
    made = LogSettings(Logs(places=LogPlaces(journal=str(tmp_path / "no-journal"))), asked)
    made.start(asked.source.load())
    assert made.logs.close(DEADLINE_S)
    assert log_file.exists()
    assert log_file.parent.stat().st_mode & 0o777 == mode
