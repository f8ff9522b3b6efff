"""The daemon's place on a host: what it is installed with, and what state the host is in."""
