"""Listening sockets: made here, or by systemd and passed in."""
