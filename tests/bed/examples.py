"""How many examples hypothesis tries: of a property a quarter, or all with --run-long."""

from typing import Any, Final

import hypothesis

_SHARE: Final = 4
_FEWEST: Final = 20

# Set before the first test's module is imported.
all_of_them = False


def profile() -> hypothesis.settings:
    """For properties that say nothing of it.

    How long an example takes says nothing on a loaded machine; figures belong to loadtest. In CI
    (hypothesis sees it by itself and then repeats the same examples) there is no clock either.
    """
    default = hypothesis.settings.default
    assert default is not None
    return examples(default.max_examples, parent=default, deadline=None)


def examples(count: int, **more: Any) -> hypothesis.settings:
    """Settings for a property, or for a state machine's class."""
    if not all_of_them:
        count = max(min(count, _FEWEST), count // _SHARE)
    return hypothesis.settings(max_examples=count, **more)
