"""proxyd: one old libvirt address, every modular daemon behind it."""

__version__ = "0.1.0"
