"""One end of a session as non-blocking bytes. Knows no loop: both planes drive it."""
