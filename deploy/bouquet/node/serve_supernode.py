"""The process that runs Flower's SuperNode and its executor: neither outlives the other.

`python -m bouquet.node.serve_supernode <arguments of flower-supernode>`
"""

import sys
from collections.abc import Sequence

from bouquet.contract.node_status import NodeStatusFile
from bouquet.contract.readiness import Readiness
from bouquet.errors import FleetError, report_errors
from bouquet.executor.app_folders import AppFolders
from bouquet.executor.executor import Executor
from bouquet.executor.linux import share_freed_memory
from bouquet.flower import stock
from bouquet.flower.fleet_client import SuperLinkUnreachableError
from bouquet.flower.node_session import NodeSession
from bouquet.flower.partition_interceptor import Partition
from bouquet.flower.supernode_main import run_supernode
from bouquet.flower.task_queue import RuntimeApi, TaskQueue, TaskType
from bouquet.node.slot import FleetSizeListener, watch_fleet_size
from bouquet.runtime.grpc_proxy import through
from bouquet.runtime.health import Health, keep_pulsing
from bouquet.runtime.steady_clock import process_clock
from bouquet.settings.executor_settings import ExecutorSettings
from bouquet.settings.node import ServingNodeSettings

HEARTBEAT_STUCK_SECONDS = 60.0
"""A node counts as online, and no heartbeat was acknowledged for so long: the thread that sends them hangs. One that
fails says so earlier."""


def serve(arguments: Sequence[str], settings: ServingNodeSettings, executor_settings: ExecutorSettings) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        arguments: The arguments of `flower-supernode`.
        settings: The node's partition, and where its files are.
        executor_settings: How to run ClientApps.

    Raises:
        FleetError: The node has given up on the SuperLink.
    """
    health = Health(Readiness(settings.directories.run))
    status = NodeStatusFile(settings.directories.nodes, settings.partition_id, settings.device)
    try:
        if executor_settings.kind == "stock":
            _serve_stock(arguments, settings, health, status)
        else:
            _serve_warm(arguments, settings, executor_settings, health, status)
    except SuperLinkUnreachableError as error:
        superlink = _value(arguments, "--superlink")
        raise FleetError(
            f"SUPERLINK={superlink}: gave up reaching the SuperLink{through(superlink)}",
            "start it, or correct SUPERLINK; if it refused this node (see above), its log says why; "
            "SUPERLINK_MAX_WAIT sets for how many seconds a SuperNode tries",
        ) from error


def _serve_warm(
    arguments: Sequence[str],
    settings: ServingNodeSettings,
    executor_settings: ExecutorSettings,
    health: Health,
    status: NodeStatusFile,
) -> None:
    clock = process_clock()
    heard = clock.time()

    def online(node_id: int) -> None:
        nonlocal heard
        heard = clock.time()
        health.set_flower(True)
        status.set_online(node_id)

    def offline(reason: str) -> None:
        health.set_flower(False)
        status.set_offline()

    share_freed_memory()
    session = NodeSession(online, offline, _partition(settings))
    api = RuntimeApi(address=_value(arguments, "--clientappio-api-address"))
    tasks = TaskQueue(api, TaskType.CLIENT_APP, session.tasks)
    executor = Executor(tasks, api, executor_settings, app_folders=AppFolders(settings.directories.run / "apps"))
    session.on_run_ended = executor.end_run
    executor.on_task = status.set_run
    _watch_fleet_size(settings, session)
    executor.start(health.set_executor)
    keep_pulsing(health.pulse, lambda: executor.is_responsive() and clock.time() - heard < HEARTBEAT_STUCK_SECONDS)
    try:
        run_supernode(arguments, session, at_exit=executor.stop)
    finally:
        executor.stop()


def _serve_stock(
    arguments: Sequence[str], settings: ServingNodeSettings, health: Health, status: NodeStatusFile
) -> None:
    def registered(node_id: int) -> None:
        health.set_flower(True)
        status.set_registered(node_id)

    _watch_fleet_size(settings, stock.StockNode())
    health.set_executor(True)  # Flower's own executor starts and ends with each message
    keep_pulsing(health.pulse)
    stock.supernode(arguments, registered)


def _partition(settings: ServingNodeSettings) -> Partition:
    """Return the node's partition as it is known before the SuperLink has said anything."""
    is_known = settings.slot is None and (settings.pinned or not settings.joined)
    return Partition(
        settings.partition_id if is_known else None,
        slot=settings.slot,
        joined=settings.joined,
        pinned=settings.joined and settings.pinned,
    )


def _watch_fleet_size(settings: ServingNodeSettings, listener: FleetSizeListener) -> None:
    if settings.slot is not None or settings.joined:
        return  # the SuperLink assigns the partition
    watch_fleet_size(settings.size_file, settings.directories.leases, settings.partition_id, settings.pinned, listener)


def _value(arguments: Sequence[str], option: str) -> str:
    return arguments[arguments.index(option) + 1]


def main() -> None:
    """Serve with the arguments of the command line."""
    serve(sys.argv[1:], ServingNodeSettings.read(), ExecutorSettings.read("clientapp"))


if __name__ == "__main__":
    report_errors(main)
