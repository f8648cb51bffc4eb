"""Runs in the worker, and in the master at its stop: the processes, and the connections to their shims."""
