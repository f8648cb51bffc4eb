"""Runs in the worker, and in the master at its stop: start, watch and end runs through their shims."""
