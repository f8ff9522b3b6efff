"""A configuration file and libvirt's logging variables: settings, or an error that says where."""

from proxyd.config.grammar import ConfigError, parse, render
from proxyd.config.settings import SPECS
from proxyd.config.sources import load, with_environment, with_verbose
from tests.fuzz.claims import claim_one_line

PATH = "/etc/proxyd.conf"
VARIABLES = ("LIBVIRT_DEBUG", "LIBVIRT_LOG_FILTERS", "LIBVIRT_LOG_OUTPUTS")
WORDS = (
    *(f"{key} = ".encode() for key in SPECS),
    b'"""',
    b"''",
    b"[ ",
    b" ]\n",
    b"9223372036854775807",
    b"-1",
    b'"none"',
    b'"0700"',
    b"#",
    b";",
)


def one_input(data):
    """The file, and behind a 0xFF each what is in the environment."""
    if not data:
        return
    privileged = bool(data[0] & 1)
    text, *variables = (
        each.decode("utf-8", "surrogateescape") for each in data[1:].split(b"\xff", 3)
    )
    try:
        loaded = load(text, PATH, privileged=privileged)
        for doubt in loaded.doubts:
            claim_one_line(doubt)
        environ = dict(zip(VARIABLES, variables, strict=False))
        with_verbose(with_environment(loaded, environ))
    except ConfigError as error:
        claim_placed(error, text)
        return
    for entry in parse(text, PATH):
        written = rendered(content_of(entry.value))
        if written is not None:
            (again,) = parse(f"{entry.key} = {written}\n", PATH)
            assert content_of(again.value) == content_of(entry.value)


def content_of(value):
    if isinstance(value.content, tuple):
        return tuple(content_of(item) for item in value.content)
    return value.content


def claim_placed(error, text):
    claim_one_line(error)
    assert error.line <= text.count("\n") + 1
    assert not error.line or 1 <= error.column <= len(text) + 1


def rendered(content):
    try:
        return render(content)
    except ValueError:
        return None  # no quotes can hold it
