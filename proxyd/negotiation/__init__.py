"""Which message may come when: sans-io machines towards the client and towards the daemon."""
