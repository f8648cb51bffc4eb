"""Runs in the worker: read logs, by lines or seconds, at the cost of what is returned."""
