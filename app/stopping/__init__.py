"""Runs in the shim and the worker: the end of one tree by signals."""
