"""The ways in which a measurement does not come about, or is of no use in the end."""


class UsageError(Exception):
    """The command line asks for something that cannot be done; nothing was started."""


class TargetFailure(Exception):
    """A target did not do its part; one line for the user, which names the target."""

    def __init__(self, target: str, reason: str) -> None:
        # Both go to the base class, so that the failure survives the pipe from a generator.
        super().__init__(target, reason)
        self._line = f"target {target}: {reason}"

    def __str__(self) -> str:
        return self._line


class NotAgreed(ConnectionError):
    """TLS or SASL did not come about, or broke; one line with what to do, for a TargetFailure."""


class NotKept(Exception):
    """The result was shown and could not be written; one line for the user."""
