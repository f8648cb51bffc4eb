"""Runs in every process of ours: the log's format, its times, and a snapshot of a log."""
