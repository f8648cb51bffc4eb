"""Addresses and host names: what they look like, and which of them only this machine can reach."""

from __future__ import annotations

import ipaddress
import re

HOST_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_.])?")
HOST_AND_PORT = re.compile(r"(?P<name>[^\[\]:\s]+|\[[^\[\]\s]+\])(?::(?P<port>[0-9]{1,5}))?")


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address without port or brackets can only mean this machine.

    `*.localhost` does not count: not every resolver keeps such names from the network (RFC 6761, section 6.3).
    """
    name = host.lower().removesuffix(".")
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def split_port(host: str) -> str | None:
    """Return a Host header without its port, an IPv6 address in its brackets; None when it has not that form."""
    match = HOST_AND_PORT.fullmatch(host)
    return match["name"] if match else None


def is_exposed(address: object) -> bool:
    """Tell whether others than this machine's programs may reach what `socket.getsockname()` gave."""
    match address:
        case str() | bytes():
            return False
        case (str(host), *_):
            return not is_loopback(host)
        case _:  # a family we know nothing about
            return True


def show(address: object) -> str:
    """Return an address as one would write it."""
    match address:
        case (str(host), int(port), *_):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case _:
            return str(address)


def is_ip_address(host: str) -> bool:
    """Tell whether `host` is an IPv4 or IPv6 address, without brackets."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_host(name: str) -> bool:
    """Tell whether this can be a host: a name, an IPv4 address, or an IPv6 address in brackets."""
    return is_ip_address(name[1:-1]) if name.startswith("[") else HOST_NAME.fullmatch(name) is not None
