"""Runs in the worker: how requests are read and answers made, whatever they are about."""
