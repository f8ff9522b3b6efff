"""The man page proxyd(8), made from the command line's parser.

In man(7)'s macros: .SH and .SS are headings, .TP an indented paragraph under a term, .nf and .fi
hold lines as they are.
"""

import argparse
import re
import textwrap
from collections.abc import Iterator
from typing import Final

from proxyd import __version__
from proxyd.deploy.commands import Command, Option, described

_NAME: Final = "libvirt proxy daemon: one old address, every modular daemon behind it"
# Words and a colon; what stands behind them; and all further lines.
_HEADED: Final = re.compile(r"([a-z][a-z ]*):[ ]*([^\n]*)(.*)", re.DOTALL)
_FILES: Final = (
    ("/etc/libvirt/virtproxyd.conf", "The configuration; the file that is installed explains it."),
    ("/etc/default/virtproxyd, /etc/sysconfig/virtproxyd", "Arguments of the service."),
    (
        "/run/libvirt/libvirt-sock, libvirt-sock-ro, libvirt-admin-sock",
        "Where clients connect: full access, reading only, administration of proxyd itself.",
    ),
    ("/etc/libvirt/proxyd-passwords", "What SCRAM compares passwords with."),
    ("/etc/libvirt/krb5.tab", "The keytab for Kerberos."),
    ("/etc/pki/CA/cacert.pem, /etc/pki/libvirt/servercert.pem", "Certificates for TLS."),
)
_SEE_ALSO: Final = ("virsh(1)", "virt-admin(1)", "systemctl(1)", "systemd.socket(5)", "polkit(8)")


def man_page(parser: argparse.ArgumentParser) -> str:
    """The page's source."""
    return "\n".join(_lines(described(parser))) + "\n"


def _lines(command: Command) -> Iterator[str]:
    name = command.words[0]
    yield f'.TH {name.upper()} 8 "" "{name} {__version__}" "System Administration"'
    yield ".SH NAME"
    yield f"{name} \\- {_text(_NAME)}"
    yield ".SH SYNOPSIS"
    for each in command.all():
        yield _synopsis(each)
        yield ".br"
    yield ".SH DESCRIPTION"
    yield from _paragraphs(command.description)
    yield ".SH OPTIONS"
    yield from _options(command)
    if command.commands:
        yield ".SH COMMANDS"
    for each in command.all()[1:]:
        yield f'.SS "{_text(" ".join(each.words))}"'
        yield from _paragraphs(each.description)
        yield from _options(each)
        yield from _epilog(each, heading=".PP\n.B")
    yield from _epilog(command, heading=".SH")
    yield ".SH FILES"
    for path, meaning in _FILES:
        yield from (".TP", f".I {_text(path)}", _text(meaning))
    yield ".SH SEE ALSO"
    references = (each.removesuffix(")").split("(") for each in _SEE_ALSO)
    yield ",\n".join(f"\\fB{_text(page)}\\fP({section})" for page, section in references)


def _synopsis(command: Command) -> str:
    words = [f"\\fB{_text(' '.join(command.words))}\\fP"]
    words += ["[\\fIOPTION\\fP...]"] if command.options else []
    words += [_placed(each) for each in command.arguments]
    return " ".join(words)


def _placed(argument: Option) -> str:
    name = f"\\fI{_text(argument.value)}\\fP" + ("..." if argument.many else "")
    return name if argument.required else f"[{name}]"


def _options(command: Command) -> Iterator[str]:
    for each in (*command.arguments, *command.options):
        flags = ", ".join(f"\\fB{_text(flag)}\\fP" for flag in each.flags)
        value = f"\\fI{_text(each.value)}\\fP" if each.value else ""
        yield from (".TP", " ".join(part for part in (flags, value) if part))
        yield _text(each.meaning)


def _epilog(command: Command, *, heading: str) -> Iterator[str]:
    """Its blocks; one that begins with words and a colon has these for a heading."""
    for block in command.epilog.strip("\n").split("\n\n"):
        headed = _HEADED.fullmatch(block)
        if headed is None:
            yield from _paragraphs(block)
            continue
        title, text, lines = headed.groups()
        yield f'{heading} "{_text(title.upper() if heading == ".SH" else title)}"'
        if text:
            yield from _paragraphs(text + lines)
        else:
            yield from (".PP", ".nf", _text(textwrap.dedent(lines).strip("\n")), ".fi")


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        if paragraph.strip():
            yield from (".PP", _text(" ".join(paragraph.split())))


def _text(text: str) -> str:
    """Prose as roff takes it: no line is a request, no hyphen breaks what is copied from it."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    lines = (f"\\&{line}" if line[:1] in {".", "'"} else line for line in escaped.split("\n"))
    return "".join(c if c.isascii() else f"\\[u{ord(c):04X}]" for c in "\n".join(lines))
