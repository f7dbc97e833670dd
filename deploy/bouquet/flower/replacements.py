"""Every name in Flower's modules that Bouquet replaces, and why. All else is built from Flower's parts."""

from importlib import import_module
from typing import Any

from bouquet.flower.version import FlowerChangedError

_RUN_SERVERAPP = "flwr.superlink.runtime.run_serverapp"

REPLACEMENTS: dict[tuple[str, str], str] = {
    (_RUN_SERVERAPP, "GrpcGrid"): "`run_serverapp` constructs its Grid by this name; ours waits for replies by events",
    (
        _RUN_SERVERAPP,
        "start_log_uploader",
    ): "Flower's wakes five times a second, whether or not there are lines to upload",
    (
        "flwr.supercore.state.alembic.utils",
        "build_alembic_config",
    ): "Alembic splits Flower's list of folders at spaces, which may be part of the environment's path",
    (_RUN_SERVERAPP, "flush_logs"): "Flower's sleeps for a second at the end of each run",
    (_RUN_SERVERAPP, "run_"): "it loads the app; a worker has to forget modules that the app brings itself first",
    (_RUN_SERVERAPP, "flwr_exit"): "SIGTERM during Flower's is a deadlock: its handler takes a lock that is held",
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
