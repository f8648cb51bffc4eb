"""Runs in every process of ours: a shim's descriptor numbers and name; it imports nothing, as a start waits for it."""

CONNECTION_FD = 3
LISTENER_FD = 4
PIPE_FD = 5
WRITE_END_FD = PIDFD_FD = 6
NAME = b"llm-shell-shim"
# Connections that may wait to be accepted; the system's own bound, net.core.somaxconn, is the same since Linux 5.4
# (listen(2)). Any user may connect, and would easily fill a short queue.
BACKLOG = 4096
