"""One module per kind of measurement; each takes values and gives figures, and prints nothing."""
