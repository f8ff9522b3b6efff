"""The fixtures of the control plane, here too."""

from tests.session.conftest import *  # noqa: F403
