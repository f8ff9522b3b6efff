"""A user's own daemons, started when a client asks for one."""
