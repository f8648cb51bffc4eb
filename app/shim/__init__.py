"""Runs in zygote, understudy and shim: start the command, write its log, report its end, end its tree."""
