"""Runs in every process of ours: runs on disk, by spec, name, files and record, and the members of their trees."""
