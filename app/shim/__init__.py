"""Runs in the shim, one process for each run: start the command, write its log, report its end, stop its tree."""
