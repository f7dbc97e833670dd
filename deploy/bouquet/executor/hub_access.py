"""A process that cannot reach the dataset hub gives up at the first failed connection, and says what to do.

`huggingface_hub` tries each of its requests six times, 23 s in all, and a run makes several. Here, a process whose
first connection to the hub fails is offline until it ends, as with `HF_HUB_OFFLINE=1`: what is in the cache loads at
once, and what is not fails at once. A connection that fails after the hub has answered is retried as usual.

Nothing is imported for this: `watch` waits until the app, or the preload, imports the libraries.
"""

import os
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import wraps
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.request import getproxies

from bouquet.errors import HostError

CONNECT_SECONDS = 6.0
"""How long the first look-up of the name may take, and then the first connection. A look-up whose first packet is lost
takes 5 s."""


class DatasetUnavailableError(HostError, ConnectionError):
    """A dataset is neither in the cache nor can it be downloaded.

    It is a `ConnectionError` too, because `datasets` raises that one.
    """


def watch() -> None:
    """Apply this to `huggingface_hub` and `datasets` when they are imported; call it before they are."""
    sys.meta_path.insert(0, _AfterImport({"huggingface_hub": _give_up_early, "datasets.load": _explain}))


class _AfterImport:
    """Calls a function with a module right after its import."""

    def __init__(self, then: dict[str, Callable[[Any], None]]) -> None:
        self._then = then

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the spec of a module in question, whose loader calls its function; None for any other module."""
        then = self._then.get(name)
        spec = PathFinder.find_spec(name, path, target) if then else None
        if then is None or spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_call(module: ModuleType) -> None:
            execute(module)
            then(module)

        spec.loader.exec_module = execute_and_call  # type: ignore[method-assign]
        return spec


class _Hub:
    """What this process knows about the hub.

    Attributes:
        answers: Whether the hub has answered a request.
        problem: Why it cannot be reached; empty while that is not known to be so.
    """

    answers = False
    problem = ""

    def go_offline(self, problem: str) -> None:
        """Have the libraries of this process make no more requests."""
        self.problem = problem
        sys.modules["huggingface_hub.constants"].HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
        if config := sys.modules.get("datasets.config"):  # has a copy
            config.HF_HUB_OFFLINE = config.HF_DATASETS_OFFLINE = True  # type: ignore[attr-defined]


_hub = _Hub()


def _give_up_early(huggingface_hub: Any) -> None:
    """Have the HTTP client of `huggingface_hub` stop at the first failed connection; release 1.0 or newer."""
    if not hasattr(huggingface_hub, "set_client_factory"):
        return
    from huggingface_hub.utils._http import default_client_factory  # noqa: PLC0415  imported by now

    def client_factory() -> Any:
        client = default_client_factory()
        client.send = _sending(client.send)  # type: ignore[method-assign]  # every request goes through it
        return client

    huggingface_hub.set_client_factory(client_factory)


def _sending(send: Callable[..., Any]) -> Callable[..., Any]:
    import httpx  # noqa: PLC0415
    from huggingface_hub.errors import OfflineModeIsEnabled  # noqa: PLC0415

    @wraps(send)
    def send_or_give_up(request: httpx.Request, **options: Any) -> Any:
        try:
            if not _hub.answers and not _hub.problem:
                timeout = request.extensions.setdefault("timeout", {})
                timeout["connect"] = min(timeout.get("connect") or CONNECT_SECONDS, CONNECT_SECONDS)
                _wait_for_name(request.url.host)
            response = send(request, **options)
        except OfflineModeIsEnabled:
            if not _hub.problem:
                raise  # the user's own HF_HUB_OFFLINE
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, TimeoutError) as error:
            if _hub.answers:
                raise
            reason = error if str(error) else type(error).__name__
            _hub.go_offline(f"{request.url.host} cannot be reached ({reason})")
        else:
            _hub.answers = True
            return response
        # The libraries do not retry this error, and look into their caches then.
        raise OfflineModeIsEnabled(f"{_hub.problem}; {_hint('NAME')}")

    return send_or_give_up


def _wait_for_name(host: str) -> None:
    """Look a host name up; no timeout of a socket limits that. A proxy would do it itself.

    Raises:
        TimeoutError: There is no answer in time.
    """
    if {"https", "all"} & getproxies().keys():
        return

    def look_up() -> None:
        with suppress(OSError):  # connecting says so
            socket.getaddrinfo(host, None)

    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    if thread.is_alive():
        raise TimeoutError(f"no name server answers within {CONNECT_SECONDS:g} s")


def _explain(load: Any) -> None:
    """Have `datasets` say in one line what is missing and what to do; all its ways to a dataset use this function."""
    from huggingface_hub import constants  # noqa: PLC0415

    find = load.dataset_module_factory

    @wraps(find)
    def find_or_explain(path: str, *arguments: Any, **options: Any) -> Any:
        try:
            return find(path, *arguments, **options)
        except (ConnectionError, FileNotFoundError):
            if not constants.HF_HUB_OFFLINE or Path(path).exists():
                raise
            problem = _hub.problem or "HF_HUB_OFFLINE=1"
            raise DatasetUnavailableError(f"dataset {path}: {problem}", _hint(path)) from None

    load.dataset_module_factory = find_or_explain


def _hint(name: str) -> str:
    """Return how to bring a dataset along."""
    fill = f"fill a cache where the hub answers: bouquet dataset {name}"
    if os.environ.get("BOUQUET_HF_CACHE"):
        return f"the cache in HF_CACHE does not have it; {fill}; then set HF_CACHE to it"
    return f"HF_CACHE is not set; {fill}; then set HF_CACHE to its folder"
