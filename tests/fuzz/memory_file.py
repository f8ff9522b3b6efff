"""A file that is nowhere but has a path, for readers that open one."""

import functools
import os


@functools.cache
def _descriptor(name):
    descriptor = os.memfd_create(name)
    os.fchmod(descriptor, 0o600)
    return descriptor


def path_of(name, content):
    """The path of a regular file of ours that holds this. There is one of each name."""
    descriptor = _descriptor(name)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, content, 0)
    return f"/proc/self/fd/{descriptor}"
