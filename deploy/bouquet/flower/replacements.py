"""Every name in Flower's modules that Bouquet replaces, and why. All else is built from Flower's parts."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from bouquet.flower.version import FlowerChangedError

_RUN_SERVERAPP = "flwr.superlink.runtime.run_serverapp"
_STRATEGY = "flwr.serverapp.strategy.strategy"

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
    (
        _STRATEGY,
        "Strategy.start",
    ): "the fleet records the rounds of any strategy, which must not wait for nodes that left",
    (_STRATEGY, "Strategy.__init_subclass__"): "an app's own strategy may have a loop of its own in `start`",
    (
        "flwr.serverapp.strategy.fedavg",
        "FedAvg._check_and_log_replies",
    ): "Flower's ends the run at one node's bad reply; ours turns that reply into that node's failure",
    (_RUN_SERVERAPP, "flwr_exit"): "SIGTERM during Flower's is a deadlock: its handler takes a lock that is held",
}


def replace(module: str, name: str, replacement: Any) -> Any:
    """Replace a name in one of Flower's modules.

    Args:
        module: The module. It goes by its name, because several of Flower's packages export a function named like the
            module that it is from, which hides the module from `from ... import`.
        name: One of the module's names in `REPLACEMENTS`: ``name``, or ``Class.method``.
        replacement: What to put there.

    Returns:
        What was there.

    Raises:
        KeyError: The name is not in `REPLACEMENTS`.
        FlowerChangedError: The module has no such name.
    """
    if (module, name) not in REPLACEMENTS:
        raise KeyError(f"{module}.{name} is not in bouquet.flower.replacements.REPLACEMENTS: list it with a reason")
    owner_name, _, attribute = name.rpartition(".")
    owner: Any = import_module(module)
    if owner_name:
        owner = getattr(owner, owner_name, None)
    if not hasattr(owner, attribute):
        raise FlowerChangedError(f"{module} no longer has `{name}`")
    original = getattr(owner, attribute)
    setattr(owner, attribute, replacement)
    return original


@contextmanager
def overridden(instance: Any, **attributes: Any) -> Iterator[None]:
    """Give an object other attributes, methods too, for the duration of a block.

    Args:
        instance: An object with attributes of its own, such as the strategy of an app.
        **attributes: The attributes.
    """
    own = vars(instance)
    before = {name: own[name] for name in attributes if name in own}
    own.update(attributes)
    try:
        yield
    finally:
        for name in attributes:
            own.pop(name, None)
        own.update(before)
