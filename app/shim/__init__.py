"""Runs in the shim, one process for each run: start the command, keep its output, tell of its end, end its tree."""
