"""Certificates for TLS between libvirt's clients and a host: made, revoked and checked.

`proxyd certs` is the command, `certs.authority.Authority` the same for programs. Of proxyd it
imports `auth` (what fits, how a name is spelled) and `config` (quoting). README.md is the guide.
"""
