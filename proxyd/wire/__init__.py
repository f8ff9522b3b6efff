"""Bytes to values and back: libvirt's XDR, frames and programs.

Knows no sockets, clocks or threads.
"""
