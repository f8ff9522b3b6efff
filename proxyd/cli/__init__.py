"""The command line: `proxyd` and its subcommands, and how their answers look."""
