"""Every name in Flower's modules that Bouquet replaces, and why. All else is built from Flower's parts."""

from importlib import import_module
from typing import Any

from bouquet.flower.version import FlowerChangedError, check_version

__all__ = ["REPLACEMENTS", "check_version", "replace"]

_RUN_SERVERAPP = "flwr.superlink.runtime.run_serverapp"
_FLOWER_SUPERLINK = "flwr.superlink.cli.flower_superlink"

REPLACEMENTS: dict[tuple[str, str], str] = {
    (_RUN_SERVERAPP, "GrpcGrid"): "`run_serverapp` constructs its Grid by this name; ours waits for replies by events",
    (_RUN_SERVERAPP, "start_log_uploader"): "Flower's uploads every 3 s",
    (_RUN_SERVERAPP, "flush_logs"): "Flower's looks once a second whether all lines are uploaded",
    # The SuperLink
    (_FLOWER_SUPERLINK, "FleetServicer"): "holds calls",
    (_FLOWER_SUPERLINK, "SuperLinkLifespan"): "tells when all APIs serve",
    (_FLOWER_SUPERLINK, "NodeAuthServerInterceptor"): "logs refused nodes",
    (_FLOWER_SUPERLINK, "sleep"): "wakes ten times a second",
    ("flwr.superlink.servicer.runtime.runtime_grpc", "SuperLinkRuntimeServicer"): "holds calls",
    ("flwr.superlink.servicer.control.control_grpc", "ControlServicer"): "tells of new and stopped runs",
    ("flwr.superlink.servicer.control.control_handlers", "time"): "looks for log lines by sleeping",
    ("flwr.server.superlink.linkstate.linkstate_factory", "SqlLinkState"): "keeps messages in memory and files",
    ("flwr.supercore.object_store.object_store_factory", "SqlObjectStore"): "keeps objects in memory and files",
    (
        "flwr.server.superlink.fleet.grpc_rere.node_auth_server_interceptor",
        "bytes_to_public_key",
    ): "verifies each signature once",
    (
        "flwr.server.superlink.fleet.grpc_rere.node_auth_server_interceptor",
        "verify_signature",
    ): "verifies each signature once",
}


def replace(module: str, name: str, replacement: Any) -> Any:
    """Replace a name in one of Flower's modules.

    Args:
        module: The module. It goes by its name, because several of Flower's packages export a function named like the
            module that it is from, which hides the module from `from ... import`.
        name: One of the module's names in `REPLACEMENTS`.
        replacement: What to put there.

    Returns:
        What was there.

    Raises:
        KeyError: The name is not in `REPLACEMENTS`.
        FlowerChangedError: The module has no such name.
    """
    if (module, name) not in REPLACEMENTS:
        raise KeyError(f"{module}.{name} is not in bouquet.flower.replacements.REPLACEMENTS: list it with a reason")
    target = import_module(module)
    if not hasattr(target, name):
        raise FlowerChangedError(f"{module} no longer has `{name}`")
    original = getattr(target, name)
    setattr(target, name, replacement)
    return original
