"""Runs in every process of ours: the messages between supervisor and shim, and the constants of a shim's start."""
