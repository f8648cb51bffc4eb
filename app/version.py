"""The version, for whoever tells it."""

__version__ = "1.0.0"
