"""Whether an HTTP proxy is in the way of a `flwr` command that the user types."""

import ipaddress
import os
from collections.abc import Mapping
from contextlib import suppress

PROXIES = ("https_proxy", "http_proxy")
"""The variables that gRPC reads, in their order, after `grpc_proxy`."""
HOST = "127.0.0.1"
FIX = 'export no_proxy="$no_proxy,127.0.0.1,localhost"'


def http_proxies(environment: Mapping[str, str] = os.environ) -> str:
    """Say whether `flwr`, typed by the user, reaches the fleet. The commands of `bouquet` do, whatever is set."""
    used = next((name for name in PROXIES if environment.get(name)), None)
    if used is None:
        return "none is set"
    if _excepts(environment.get("no_proxy", ""), HOST):
        return f"{used} is for downloads; no_proxy excepts {HOST}"
    capital = ", not in capital letters" if _excepts(environment.get("NO_PROXY", ""), HOST) else ""
    return f"{used} is for downloads; before you type a flwr command{capital}: {FIX}"


def _excepts(no_proxy: str, host: str) -> bool:
    """Whether gRPC reaches a host directly with this `no_proxy`: by a suffix, or by a network that contains it."""
    for entry in filter(None, map(str.strip, no_proxy.split(","))):
        if host.endswith(entry):
            return True
        with suppress(ValueError):
            if ipaddress.ip_address(host) in ipaddress.ip_network(entry):
                return True
    return False
