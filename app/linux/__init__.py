"""Runs in every process of ours: system calls and `/proc`; imports no other package of this application."""
