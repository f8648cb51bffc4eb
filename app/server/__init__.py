"""Runs in the master, and in the worker from its fork on: gunicorn, adapted to a service that must not end."""
