"""What state the host is in, and how it goes from one arrangement of daemons to the other."""
