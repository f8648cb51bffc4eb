"""Runs in the worker: read requests and make answers, whatever the call."""
