"""Runs in the worker: the version, as /health and the API's description report it."""

__version__ = "1.0.0"
