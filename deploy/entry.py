"""What both entry points share: report an error in one line, and become Flower's own process."""

import os
import socket
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from deploy.errors import BouquetError

INSECURITY = (
    "INSECURE=1: no TLS and no authentication: whoever reaches this fleet can read what it sends, join it and run "
    "code on every node; never beyond one machine"
)


def become(module: str, arguments: Sequence[str]) -> NoReturn:
    """Replace this process by `python -m <module> <arguments>`: same pid, same signals, same open locks."""
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606  a list, no shell


def report(main: Callable[[], None]) -> None:
    """Run `main`; turn a `BouquetError` into one line on stderr and its exit code."""
    try:
        main()
    except BouquetError as error:
        sys.stderr.write(f"bouquet: error: {error}\n")
        sys.exit(error.exit_code)


def warn_of_insecurity() -> None:
    """Say loudly what `INSECURE=1` means."""
    sys.stderr.write(f"bouquet: warning: {INSECURITY}\n")


def concrete(address: str) -> str:
    """Return `address` with port 0 replaced by a free one: both Flower and its executor must know it beforehand."""
    host, _, port = address.rpartition(":")
    if port != "0":
        return address
    with socket.socket() as free:
        free.bind((host, 0))
        return f"{host}:{free.getsockname()[1]}"
