"""Runs in the shim, the master and the worker: the end of one tree by signals."""
