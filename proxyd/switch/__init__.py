"""How a host goes from one arrangement of daemons to the other."""
