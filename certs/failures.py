"""The one error of this package."""


class CannotDo(Exception):
    """What was asked cannot be done: one line that says why and what to do instead."""
