"""Runs in gunicorn's master, and in the worker at its birth and in its main loop."""
