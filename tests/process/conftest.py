"""The fixture for whoever takes signals, here too."""

from tests.daemon.conftest import signals_blocked

__all__ = ["signals_blocked"]
