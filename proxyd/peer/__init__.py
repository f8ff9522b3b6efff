"""Who is at the other end of a UNIX socket, and what that user is called."""
