"""Who did what to which guest: records, where they go, and what holds while they cannot."""
