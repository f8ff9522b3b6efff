"""`soak`: hours of sessions that come, go and vanish, and an account of every call at the end."""
