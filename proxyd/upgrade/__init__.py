"""One process hands the daemon over to another one, without a client noticing."""
