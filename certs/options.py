"""The command line's words."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

from proxyd.config.priority import check_priority
from proxyd.invocation import pasteable_examples
from proxyd.pki.fitness import Purpose

from . import keys
from .authority import AUTHORITY_DAYS, LEAF_DAYS, LIST_DAYS, LONGEST_DAYS
from .names import Attributes
from .revoking import REASONS

PROGRAM: Final = "proxyd certs"

_EXAMPLES: Final = """\
examples:
  proxyd certs init   --dir ./pki --name "Example CA"
  proxyd certs server --dir ./pki host.example.org --dns host --ip 192.0.2.1
  proxyd certs client --dir ./pki joe --organization Example --flat ./joe
  proxyd certs client --dir ./pki ann --key ml-dsa-65 --flat ./ann
  proxyd certs renew  --dir ./pki
  proxyd certs revoke --dir ./pki joe --reason keyCompromise
  proxyd certs list   --dir ./pki
  proxyd certs check  --host host.example.org

exit status: 0 done; 1 it cannot be done; 2 the command line makes no sense; 130 interrupted.
             check has those of monitoring plugins: 0 all is well, 1 warnings, 2 problems,
             3 it cannot be said, as where the command line makes no sense.
"""
_SERVER_EXAMPLES: Final = """\
examples:
  proxyd certs server --dir ./pki host.example.org --ip 192.0.2.1 --ip 2001:db8::1
  proxyd certs server --dir ./pki other.example.org --out ./other

A client looks for the name that it connects to: give every name and address that is used.
"""
_CLIENT_EXAMPLES: Final = """\
examples:
  proxyd certs client --dir ./pki joe --country DE --organization Example
  proxyd certs client --dir ./pki joe --flat ./joe
      virsh -c 'qemu+tls://host.example.org/system?pkipath=/path/to/joe' list
"""
_RENEW_EXAMPLES: Final = """\
examples:
  proxyd certs renew --dir ./pki
  proxyd certs renew --dir ./pki ./joe/clientcert.pem

The old certificate counts until its end, unless it is revoked.
"""
_REVOKE_EXAMPLES: Final = """\
examples:
  proxyd certs revoke --dir ./pki ./joe/clientcert.pem
  proxyd certs revoke --dir ./pki joe --all --reason superseded
  proxyd certs revoke --dir ./pki 48ee3009649c
"""
_CHECK_EXAMPLES: Final = """\
examples:
  proxyd certs check                                  what this host uses, /etc/pki
  proxyd certs check --role server --host kvm1.example.org
  proxyd certs check --dir ./joe --json               what ?pkipath=./joe would use
"""


_NewVerb: TypeAlias = Callable[..., argparse.ArgumentParser]


class _Parser(argparse.ArgumentParser):
    """Its examples can be copied."""

    def format_help(self) -> str:
        return pasteable_examples(super().format_help())


def parser() -> argparse.ArgumentParser:
    """All verbs; the one that was given is `verb`."""
    top = _Parser(
        prog=PROGRAM,
        description="Makes, revokes and checks certificates for TLS between libvirt's clients and"
        " a host.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_verbs(top)
    return top


def add_verbs(top: argparse.ArgumentParser) -> None:
    """To a parser that is the tool's own, or that writes about its command line."""
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=_Parser)
    for add in (_init, _server, _client, _renew, _revoke, _crl, _list, _check):
        add(verbs.add_parser)


def attributes_in(options: argparse.Namespace) -> Attributes:
    """What is to stand before the name in a subject."""
    return Attributes(
        country=options.country,
        state=options.state,
        locality=options.locality,
        organization=options.organization,
        unit=options.unit,
    )


def _verb(new: _NewVerb, name: str, summary: str, examples: str = "") -> argparse.ArgumentParser:
    return new(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=examples or None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _init(new: _NewVerb) -> None:
    verb = _verb(new, "init", "make a CA: a key that stays here and a certificate for everybody")
    _add_directory(verb)
    verb.add_argument("--name", default="libvirt CA", help="its name (%(default)s)")
    _add_key(verb, keys.DEFAULT_KIND, shown=keys.DEFAULT_KIND)
    _add_days(verb, AUTHORITY_DAYS)
    verb.add_argument("--force", action="store_true", help="put the CA aside that is there")


def _server(new: _NewVerb) -> None:
    verb = _verb(new, "server", "issue a server's certificate and key", _SERVER_EXAMPLES)
    verb.add_argument("name", metavar="NAME", help="the host's name or address")
    verb.add_argument(
        "--dns", action="append", default=[], metavar="NAME", help="another name; may be repeated"
    )
    verb.add_argument(
        "--ip",
        action="append",
        default=[],
        metavar="ADDR",
        help="another address; may be repeated",
    )
    _add_issue(verb)


def _client(new: _NewVerb) -> None:
    verb = _verb(new, "client", "issue a client's certificate and key", _CLIENT_EXAMPLES)
    verb.add_argument("name", metavar="NAME", help="the client's name: a user, a host, a program")
    _add_issue(verb)


def _renew(new: _NewVerb) -> None:
    summary = "issue a certificate anew, with the same names, a new key and a later end"
    verb = _verb(new, "renew", summary, _RENEW_EXAMPLES)
    verb.add_argument(
        "which",
        metavar="FILE",
        nargs="?",
        type=_directory,
        help="the certificate; it and its key are replaced (default: the server's below DIR)",
    )
    _add_directory(verb)
    _add_days(verb, LEAF_DAYS)


def _revoke(new: _NewVerb) -> None:
    verb = _verb(new, "revoke", "put a certificate on the revocation list", _REVOKE_EXAMPLES)
    verb.add_argument(
        "which", metavar="CERT", help="a file, a name or the beginning of a serial number"
    )
    _add_directory(verb)
    verb.add_argument("--reason", choices=list(REASONS), default="", help="one of %(choices)s")
    verb.add_argument("--all", action="store_true", help="all that have this name")
    _add_days(verb, LIST_DAYS, of="the list")


def _crl(new: _NewVerb) -> None:
    verb = _verb(new, "crl", "make the revocation list anew, before it is out of date")
    _add_directory(verb)
    _add_days(verb, LIST_DAYS)


def _list(new: _NewVerb) -> None:
    verb = _verb(new, "list", "show what was issued")
    _add_directory(verb)
    verb.add_argument("--json", action="store_true", help="for programs")


def _check(new: _NewVerb) -> None:
    verb = _verb(new, "check", "say what is wrong with files, and how to mend it", _CHECK_EXAMPLES)
    verb.add_argument(
        "--dir",
        type=_directory,
        metavar="DIR",
        help="a tree like /etc/pki or a directory for ?pkipath= (default: what libvirt uses)",
    )
    verb.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name or address that clients use for this server; may be repeated",
    )
    verb.add_argument(
        "--role",
        choices=[each.value for each in Purpose],
        help="what has to be there (default: whatever is)",
    )
    verb.add_argument(
        "--tls-priority",
        type=_priority,
        metavar="STRING",
        help="the tls_priority that the server's files are to serve clients with (default: NORMAL)",
    )
    verb.add_argument("--json", action="store_true", help="for programs")


def _priority(text: str) -> str:
    expected = check_priority(text)
    if expected is not None:
        raise argparse.ArgumentTypeError(f"{expected} expected")
    return text


def _add_issue(verb: argparse.ArgumentParser) -> None:
    _add_directory(verb)
    where = verb.add_mutually_exclusive_group()
    where.add_argument(
        "--out",
        type=_directory,
        metavar="DIR2",
        help="write there, a tree like /etc/pki (default: DIR)",
    )
    where.add_argument(
        "--flat",
        type=_directory,
        metavar="DIR2",
        help="write there, all in one directory (?pkipath=)",
    )
    subject = verb.add_argument_group("more of the subject")
    subject.add_argument("-C", "--country", default="", help="two letters")
    subject.add_argument("-S", "--state", default="")
    subject.add_argument("-L", "--locality", default="")
    subject.add_argument("-O", "--organization", default="")
    subject.add_argument("-U", "--unit", default="")
    _add_key(verb, None, shown="that of the CA")
    _add_days(verb, LEAF_DAYS)
    verb.add_argument("--force", action="store_true", help="replace what is there, keys included")


def _add_directory(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--dir", type=_directory, required=True, metavar="DIR", help="where the CA is, a tree"
    )


def _add_key(verb: argparse.ArgumentParser, default: str | None, *, shown: str) -> None:
    verb.add_argument(
        "--key",
        choices=keys.KINDS,
        default=default,
        metavar="KIND",
        help=f"{', '.join(keys.KINDS)} (default: {shown})",
    )


def _add_days(verb: argparse.ArgumentParser, default: int, of: str = "it") -> None:
    verb.add_argument(
        "--days",
        type=_days,
        default=default,
        metavar="N",
        help=f"how long {of} is valid (%(default)s)",
    )


def _days(text: str) -> int:
    plain = text.isascii() and text.isdecimal() and len(text) <= len(str(LONGEST_DAYS))
    if not (plain and 1 <= int(text) <= LONGEST_DAYS):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {LONGEST_DAYS}")
    return int(text)


def _directory(text: str) -> Path:
    if not text:  # an unset variable of a script, and no wish for the current directory
        raise argparse.ArgumentTypeError("the name of the directory is empty")
    return Path(text)
