"""The process that an entry point becomes: Flower's SuperNode with its executor, or a SuperLink's, ready or not.

python -m deploy.serve superlink|supernode <arguments of flower-superlink|flower-supernode>
"""

import shlex
import shutil
import sys
import threading
from collections.abc import Sequence

import grpc

from deploy.entry import report
from deploy.errors import FleetError
from deploy.executor import host
from deploy.executor.executor import ExecutorSettings
from deploy.flower import stock
from deploy.flower.tasks import RuntimeApi
from deploy.node_file import NodeFile
from deploy.place import Follower, follow
from deploy.probe import Readiness
from deploy.settings import ServeSettings

RUNTIME_API_OPTION = {"superlink": "--serverappio-api-address", "supernode": "--clientappio-api-address"}


class Health:
    """Ready to serve while both Flower and its executor are."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness
        self._lock = threading.Lock()
        self._up = {"flower": False, "executor": False}

    def flower(self, up: bool = True) -> None:
        """Say whether the SuperLink serves, or counts this SuperNode as online."""
        self._set("flower", up)

    def executor(self, up: bool) -> None:
        """Say whether the executor can work on a task."""
        self._set("executor", up)

    def _set(self, part: str, up: bool) -> None:
        with self._lock:
            self._up[part] = up
            if all(self._up.values()):
                self._readiness.declare()
            else:
                self._readiness.withdraw()


def superlink(arguments: Sequence[str], settings: ServeSettings, executor: ExecutorSettings) -> None:
    """Serve until told to stop."""
    readiness = Readiness(settings.run)
    if settings.executor == "stock":
        stock.superlink(arguments, readiness.declare)
        return
    health = Health(readiness)
    api = _runtime_api("superlink", arguments)
    spool = settings.run / "spool"
    shutil.rmtree(spool, ignore_errors=True)  # of runs whose ServerApps are gone
    host.superlink(arguments, api, executor, spool, on_ready=health.executor, on_serving=health.flower)


def supernode(arguments: Sequence[str], settings: ServeSettings, executor: ExecutorSettings) -> None:
    """Serve until told to stop; raise `FleetError` once it has given up on the SuperLink."""
    readiness = Readiness(settings.run)
    health = Health(readiness)
    node_file = NodeFile(settings.nodes, _partition_id(arguments), settings.device)

    def online(node_id: int) -> None:
        health.flower()
        node_file.online(node_id)

    def registered(node_id: int) -> None:
        health.flower()
        node_file.registered(node_id)

    def offline(reason: str) -> None:
        health.flower(False)
        node_file.offline()

    def follow_size(follower: Follower) -> None:
        if settings.place:
            follow(settings.size_file, settings.leases, *settings.place, follower)

    try:
        if settings.executor == "stock":
            follow_size(stock.Node())
            health.executor(True)  # Flower's own comes and goes with each message
            stock.supernode(arguments, registered)
        else:
            host.supernode(
                arguments,
                _runtime_api("supernode", arguments),
                executor,
                on_ready=health.executor,
                on_online=online,
                on_offline=offline,
                on_task=node_file.works_on,
                on_node=follow_size,
            )
    except (grpc.RpcError, RuntimeError) as error:
        # Flower logs the RpcError and lets its generator end: what comes out is "generator didn't yield".
        if isinstance(error, RuntimeError) and "generator didn't yield" not in str(error):
            raise
        raise FleetError(
            f"SUPERLINK={_value(arguments, '--superlink')}: gave up reaching the SuperLink",
            "start it, or correct SUPERLINK; if it refused this node (see above), its log says why; "
            "SUPERLINK_MAX_WAIT sets for how many seconds a SuperNode tries",
        ) from error


def _runtime_api(role: str, arguments: Sequence[str]) -> RuntimeApi:
    return RuntimeApi(address=_value(arguments, RUNTIME_API_OPTION[role]))


def _partition_id(arguments: Sequence[str]) -> int:
    config = dict(pair.split("=", 1) for pair in shlex.split(_value(arguments, "--node-config")))
    return int(config["partition-id"])


def _value(arguments: Sequence[str], option: str) -> str:
    return arguments[arguments.index(option) + 1]


def main() -> None:
    """Serve in the role that the command line names."""
    role, *arguments = sys.argv[1:]
    settings = ServeSettings.read()
    executor = ExecutorSettings(
        app="serverapp" if role == "superlink" else "clientapp",
        preload=settings.preload,
        workers=settings.workers,
        idle_seconds=settings.idle_seconds,
        task_seconds=settings.task_seconds,
    )
    (superlink if role == "superlink" else supernode)(arguments, settings, executor)


if __name__ == "__main__":
    report(main)
