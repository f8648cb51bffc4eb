"""Runs in the worker: a log as it is read."""
