"""The configuration file: read as the daemon does, and judged."""

import shlex
from collections.abc import Iterator

from proxyd.config.settings import resolve
from proxyd.doctor.files import in_the_way, way_to
from proxyd.doctor.findings import RELOAD, Finding, error, fine, note, sentence, warning
from proxyd.doctor.state import Configuration, HostState
from proxyd.doctor.surroundings import Surroundings, Unready


def read_configuration(around: Surroundings, config: str | None) -> Configuration:
    """What is in force; the defaults if that cannot be said."""
    path = config or around.config_file
    files = (way_to(path, secret=True),)
    try:
        loaded = around.load(config)
    except Unready as error:
        settings = resolve({}, privileged=True)
        return Configuration(path=path, settings=settings, trouble=str(error), files=files)
    return Configuration(
        path=path,
        settings=loaded.settings,
        doubts=tuple(str(each) for each in loaded.doubts if not each.is_ignored),
        ignored=tuple(str(each) for each in loaded.doubts if each.is_ignored),
        changed=tuple(loaded.changed),
        files=files,
    )


def judge(state: HostState) -> Iterator[Finding]:
    """What is wrong with the file, or odd in it."""
    configuration = state.configuration
    if configuration.trouble:
        check = f"proxyd --check-config -f {shlex.quote(configuration.path)}"
        yield (
            error(
                "configuration",
                sentence(configuration.trouble),
                "With this file proxyd does not start, and a reload changes nothing. The rest was"
                " looked at with the defaults.",
                ["# correct it, then", check],
            )
            if state.as_root
            else note(
                "configuration",
                sentence(configuration.trouble),
                "It may be that root can read it. The rest was looked at with the defaults.",
                [f"sudo {check}"],
            )
        )
        return
    for doubt in configuration.doubts:
        yield warning(
            "configuration-doubt",
            sentence(doubt),
            "What is written there does nothing.",
            [f"# correct {configuration.path}, then", RELOAD],
        )
    for key in configuration.ignored:
        yield note(
            "configuration-ignored", sentence(key), "It may stay: a libvirt daemon may read it."
        )
    if not configuration.doubts and not in_the_way(state, configuration.files):
        yield fine("configuration", f"The configuration ({configuration.path}) is in order.")
