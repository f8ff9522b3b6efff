"""What is claimed of every error that a target documents."""

from proxyd.config.quoting import one_line


def claim_one_line(error):
    """Its text fits a line of a log, whatever the input was."""
    said = str(error)
    assert said
    assert one_line(said) == said
