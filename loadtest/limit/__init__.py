"""`limit`: what proxyd adds to a call, as a multiple of what the barest relay there can be adds."""
