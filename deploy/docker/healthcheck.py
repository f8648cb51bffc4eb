"""Ask the container's own service for its health, and exit with 0 when it is well: the image's HEALTHCHECK."""

import http.client
import os
import socket
import sys

TIMEOUT = 4.0  # seconds, within HEALTHCHECK's own
DEFAULT_PORT = "8000"


def connect() -> socket.socket:
    """Connect to where the settings say that the service listens; raises `OSError`."""
    bind = os.environ.get("LLM_SHELL_BIND", "")
    if bind.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(TIMEOUT)
        connection.connect(bind.removeprefix("unix:"))
        return connection
    port = bind.rpartition(":")[2] or os.environ.get("LLM_SHELL_PORT", DEFAULT_PORT)
    return socket.create_connection(("127.0.0.1", int(port)), TIMEOUT)


def main() -> None:
    """Exit with 0 on the answer 200, else with a sentence for `docker inspect`."""
    client = http.client.HTTPConnection("localhost")
    try:
        client.sock = connect()
        client.request("GET", "/health")
        status = client.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        sys.exit(f"The service does not answer: {error}.")
    if status != http.client.OK:
        sys.exit(f"The service answers {status}.")


if __name__ == "__main__":
    main()
