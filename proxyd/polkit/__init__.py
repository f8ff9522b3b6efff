"""The system bus and what polkit answers there."""
