"""A terminal for what a screen prints."""

import io

from rich.console import Console


def printed(view, width=120, **how):
    """What stands on a terminal of this width, without the blanks at the ends of lines."""
    out = io.StringIO()
    Console(file=out, width=width, highlight=False, emoji=False, markup=False, **how).print(view)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())
