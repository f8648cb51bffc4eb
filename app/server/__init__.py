"""Runs in the master, and in the worker from its fork on: gunicorn, adapted so that no fault ends the service."""
