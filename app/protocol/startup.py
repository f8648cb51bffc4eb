"""What a shim finds at its start, and its name: no import is made for it, as a caller waits for one."""

CONNECTION_FD = 3
LISTENER_FD = 4
PIPE_FD = 5
WRITE_END_FD = PIDFD_FD = 6
NAME = b"llm-shell-shim"
# Connections that may wait to be accepted; the system's own bound, net.core.somaxconn, is the same since Linux 5.4
# (listen(2)). Anybody may connect, so a short queue would be full as soon as somebody likes.
BACKLOG = 4096
