"""The control plane: one trio task a client, from accept until the hand-over to the relay."""
