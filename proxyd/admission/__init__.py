"""Places for clients: how many there are, who holds them, who waits, who makes way."""
