"""gRPC goes through an HTTP proxy only where the user asks for that, with `grpc_proxy`, and never inside a fleet.

By itself gRPC sends every connection through `https_proxy` or `http_proxy`, also to names that only the fleet knows.
Docker puts these variables into all containers if its client configuration has proxies. gRPC also ignores `NO_PROXY`
in capital letters. Downloads use other libraries and keep the proxies of the environment.

gRPC reads the variables when a channel is opened, and child processes inherit them.
"""

import os
from collections.abc import Mapping, MutableMapping
from urllib.parse import urlsplit

PROXY, EXCEPTIONS = "grpc_proxy", "no_grpc_proxy"
FLEET = ("superlink", "control", "localhost", "127.0.0.1", "::1")
"""The hosts under which the members of a fleet, and `flwr` on the same machine, reach each other."""


def only_on_request(environment: MutableMapping[str, str] = os.environ) -> None:
    """Make gRPC in this process and its children connect directly, except through a `grpc_proxy` that the user set."""
    environment.setdefault(PROXY, "")  # empty, unlike not set: no proxy
    given = (environment.get(name, "") for name in (EXCEPTIONS, "no_proxy", "NO_PROXY"))
    exceptions = next(filter(None, given), "").split(",")
    environment[EXCEPTIONS] = ",".join(dict.fromkeys(filter(None, [*exceptions, *FLEET])))


def through(address: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return ` through grpc_proxy=URL`, without a password, if gRPC uses a proxy for this address; otherwise nothing.

    Args:
        address: `host:port`.
        environment: The variables after `only_on_request`.
    """
    host = address.rpartition(":")[0].strip("[]")
    exceptions = environment.get(EXCEPTIONS, "").split(",")
    proxy = environment.get(PROXY, "")
    if not proxy or any(entry and host.endswith(entry) for entry in exceptions):
        return ""
    parts = urlsplit(proxy)
    return f" through {PROXY}={parts._replace(netloc=parts.netloc.rpartition('@')[2]).geturl()}"
