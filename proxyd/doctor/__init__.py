"""What state the host is in: gathered and judged by one module a subject, and told."""
