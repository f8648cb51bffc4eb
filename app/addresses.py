"""Runs in the master and the worker: parse addresses and host names, and tell which only this machine can reach."""

import ipaddress
import re

HOST_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_.])?")
HOST_AND_PORT = re.compile(r"(?P<name>[^\[\]:\s]+|\[[^\[\]\s]+\])(?::(?P<port>[0-9]{1,5}))?")


def parse_ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return an IPv4 or IPv6 address, without brackets; None for any other text."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address without port or brackets can only mean this machine.

    `*.localhost` does not count: some resolvers ask the network for such names (RFC 6761, section 6.3).
    """
    name = host.lower().removesuffix(".")
    return name == "localhost" or ((address := parse_ip(name)) is not None and address.is_loopback)


def split_port(host: str) -> str | None:
    """Return a Host header without its port, an IPv6 address in its brackets; None when it is malformed."""
    match = HOST_AND_PORT.fullmatch(host)
    return match["name"] if match else None


def is_exposed(address: object) -> bool:
    """Tell whether other machines may reach this address, as `socket.getsockname()` returns it."""
    match address:
        case str() | bytes():
            return False
        case (str(host), *_):
            return not is_loopback(host)
        case _:  # an unknown address family
            return True


def show(address: object) -> str:
    """Return an address in the usual notation."""
    match address:
        case (str(host), int(port), *_):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case _:
            return str(address)


def is_host(name: str) -> bool:
    """Tell whether this can be a host: a name, an IPv4 address, or an IPv6 address in brackets."""
    return parse_ip(name[1:-1]) is not None if name.startswith("[") else HOST_NAME.fullmatch(name) is not None
