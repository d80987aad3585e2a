"""The version, in a file of its own, so that every room may ask for it."""

__all__ = ["__version__"]

__version__ = "0.2.0"
