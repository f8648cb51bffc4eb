"""Runs in the master and the worker: start, watch and end runs through their shims."""
