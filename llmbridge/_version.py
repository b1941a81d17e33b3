"""The version of the package: one place, read by the packaging and by users."""

__version__ = "0.2.0"
