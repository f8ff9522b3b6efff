"""Log records as logging makes them."""

import logging


def record_of(text, *args, level=logging.INFO, exc_info=None, function="run", **extra):
    made = logging.LogRecord("rpc.x", level, "/src/x.py", 7, text, args, exc_info, function)
    made.__dict__.update(extra)
    return made
