"""Keytabs, byte by byte."""

import struct

from proxyd.sasl.keytab import Keytab


def counted(text):
    return struct.pack(">H", len(text)) + text


def entry(*components, realm=b"PROXYD.TEST"):
    """As in a keytab file; behind the name stand its type, a time, a number and the key."""
    name = struct.pack(">H", len(components)) + counted(realm) + b"".join(map(counted, components))
    rest = name + struct.pack(">IIBH", 1, 0, 1, 18) + counted(bytes(32))
    return struct.pack(">i", len(rest)) + rest


def keytab_of(tmp_path, *entries, begin=b"\x05\x02"):
    path = tmp_path / "keytab"
    path.write_bytes(begin + b"".join(entries))
    return Keytab(str(path))
