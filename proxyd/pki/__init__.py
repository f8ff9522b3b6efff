"""Certificates, keys and revocation lists as files and as values, by libvirt's rules."""
