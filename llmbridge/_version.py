"""The version of the package, in one place for the packaging and for users."""

__version__ = "0.2.0"
