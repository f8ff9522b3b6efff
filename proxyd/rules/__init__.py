"""Who may open what, and do what: the rules file's text, and what follows from it. Pure."""
