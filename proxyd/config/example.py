"""The commented example file, made from the settings' own declarations.

`#key = value` is a default: taking the # away changes nothing. `# key = value`, with a space, is
an example for a key whose default is to be absent.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from proxyd.config.grammar import render
from proxyd.config.settings import SPECS

_WIDTH: Final = 80

# The key that opens each chapter, in the order of the settings.
CHAPTERS: Final[Mapping[str, str]] = {
    "listen_tls": "Listeners",
    "auth_unix_rw": "Who may come in",
    "key_file": "Certificates",
    "max_clients": "Limits",
    "admin_min_workers": "The admin socket",
    "log_level": "Logging",
    "host_uuid": "This host",
    "proxyd_backend_dir": "The daemons behind",
    "ovs_timeout": "Accepted and ignored",
}

_HEAD: Final = (
    "Configuration of proxyd, which takes the place of libvirt's virtproxyd. The syntax and the"
    " keys are libvirt's own, so a file written for virtproxyd works as it is. Keys that begin"
    " with proxyd_ are known to proxyd only; libvirt passes over them.",
    'Lines of "#key = value" show the defaults of a daemon that runs as root. Lines of "# key ='
    ' value" are examples for keys that are absent by default.',
    "proxyd --check-config tells what a changed file means, without starting anything.",
)


def example() -> str:
    """Return the whole example file."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    for paragraph in _HEAD:
        yield from _comment(paragraph)
        yield ""
    for key in SPECS:
        if key in CHAPTERS:
            yield from ("", f"# ---- {CHAPTERS[key]} ----", "")
        yield from _key(key)
        yield ""


def _key(key: str) -> Iterator[str]:
    spec = SPECS[key]
    yield from _comment(spec.meaning)
    default = spec.content(spec.default)
    if default is not None:
        yield f"#{key} = {render(default)}"
    elif spec.example is not None:
        content = spec.content(spec.example)
        assert content is not None, f"the example for {key} fails the key's own check"
        yield f"# {key} = {render(content)}"


def _comment(text: str) -> Iterator[str]:
    line = "#"
    for word in text.split():
        if len(line) + 1 + len(word) > _WIDTH:
            yield line
            line = "#"
        line += f" {word}"
    yield line
