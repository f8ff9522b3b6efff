"""Start, stop, reload, command line: the only floor that knows arguments and signals."""
