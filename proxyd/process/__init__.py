"""What makes a process a daemon: background, pid file, signals, descriptors, systemd."""
