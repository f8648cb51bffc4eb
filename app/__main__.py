"""Runs in the process that becomes the master: `python -m app`, gunicorn with the address on the command line."""

import argparse
import os
import sys
from pathlib import Path

from app.config import MAX_PORT, PREFIX

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Become gunicorn, still in the caller's working directory, from which `.env` and relative paths are taken."""
    arguments = _parse_arguments()
    for name in ("host", "port"):
        if (value := getattr(arguments, name)) is not None:
            os.environ[PREFIX + name.upper()] = str(value)
            # The command line overrides BIND from the environment and `.env`; empty counts as not set.
            os.environ[PREFIX + "BIND"] = ""
    # -P: no module is imported from the working directory, where the commands may write.
    options = ["--config", str(ROOT / "gunicorn.conf.py"), "--pythonpath", str(ROOT)]
    # The operator's own interpreter, and nothing from a request.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "gunicorn", *options, "wsgi:app"])  # noqa: S606


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m app", description="Serve LLM Shell.")
    parser.add_argument("--host", help=f"address to listen on (default: {PREFIX}HOST or 127.0.0.1)")
    parser.add_argument("--port", type=_port, help=f"port to listen on, 0 for any (default: {PREFIX}PORT or 8000)")
    return parser.parse_args()


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= MAX_PORT):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to {MAX_PORT}")
    return int(text)


if __name__ == "__main__":
    main()
