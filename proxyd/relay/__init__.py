"""The data plane: one epoll thread that moves the bytes of open sessions. Knows no trio."""
