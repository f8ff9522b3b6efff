"""Text to settings: the configuration file, routes and listeners as values. Opens no socket."""
