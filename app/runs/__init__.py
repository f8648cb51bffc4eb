"""Runs in every process of ours: a run's spec, names, files and record, and the members of its tree."""
