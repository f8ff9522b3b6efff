"""The data plane: an epoll thread for plain sessions, one for encrypted ones. Knows no trio."""
