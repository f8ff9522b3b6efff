"""Load that can be trusted: what the proxy costs, measured beside what it is compared with."""
