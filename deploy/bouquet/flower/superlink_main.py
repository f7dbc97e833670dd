"""Flower's SuperLink, put together from Flower's parts and Bouquet's: held calls, messages in memory.

`run_superlink` does what Flower's `flower_superlink()` does, and `EventLifespan` starts the three gRPC APIs as Flower's
functions do. Only the servicers, the state, the Fleet API's interceptor and the port of the Control API differ: that
port speaks gRPC and HTTP. Flower's enterprise add-ons (license, event log) and its experimental HTTP API are left out:
the open-source release has no add-ons, and that API has no route that streams logs.
"""

import signal
from contextlib import suppress
from dataclasses import dataclass
from logging import INFO, WARNING
from pathlib import Path

from flwr.common.logger import log
from flwr.proto.control_pb2_grpc import add_ControlServicer_to_server
from flwr.proto.fleet_pb2_grpc import add_FleetServicer_to_server
from flwr.proto.runtime_pb2_grpc import add_RuntimeServicer_to_server
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME
from flwr.supercore.exit import ExitCode, flwr_exit, register_signal_handlers
from flwr.supercore.grpc import generic_create_grpc_server
from flwr.supercore.interceptors import (
    RpcErrorTranslationServerInterceptor,
    create_control_runtime_version_server_interceptor,
    create_fleet_runtime_version_server_interceptor,
    create_superlink_runtime_superexec_auth_server_interceptor,
    create_superlink_runtime_token_auth_server_interceptor,
    create_superlink_runtime_version_server_interceptor,
)
from flwr.supercore.telemetry import EventType, event
from flwr.supercore.update_check import warn_if_flwr_update_available
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan, _parse_superlink_lifespan_config
from flwr.superlink.config_loader import SuperLinkLifespanConfig, get_federation_manager
from flwr.superlink.servicer.control.control_account_auth_interceptor import ControlAccountAuthInterceptor

from bouquet.flower.control_http import ControlHttp
from bouquet.flower.control_port import ControlPort
from bouquet.flower.control_servicer import EventControlServicer
from bouquet.flower.fleet_describer import FleetDescriber
from bouquet.flower.fleet_servicer import MAX_CALLS, EventFleetServicer
from bouquet.flower.link_state import StateFactory
from bouquet.flower.message_files import MessageFiles
from bouquet.flower.node_auth import NodeAuthInterceptor
from bouquet.flower.object_files import ObjectFilesFactory
from bouquet.flower.superlink_events import SuperLinkEvents
from bouquet.flower.superlink_runtime import EventRuntimeServicer
from bouquet.flower.version import check_version
from bouquet.superlink.node_records import NodeRecords
from bouquet.superlink.partition_map import PartitionMap

LOOPBACK = "127.0.0.1:0"


@dataclass(frozen=True)
class SuperLinkParts:
    """What a SuperLink has beyond Flower's.

    Attributes:
        run_dir: The container's run folder, which has the files of `bouquet.contract.partitions`.
        partitions: Which node holds which partition.
        records: The names and kinds of nodes.
        seed: The secret from which the nodes of a cluster derive their keys; None outside of a cluster.
        control_socket: Where the Control API listens in place of its configured address: `unix:` and a path.
        first: Whether this is the first process in its container, so that no ServerApp of an earlier run is alive.
    """

    run_dir: Path
    partitions: PartitionMap
    records: NodeRecords
    seed: bytes | None = None
    control_socket: str | None = None
    first: bool = True


class EventLifespan(SuperLinkLifespan):
    """Starts and stops the Control, Runtime and Fleet APIs of one SuperLink."""

    def __init__(
        self,
        config: SuperLinkLifespanConfig,
        states: StateFactory,
        objects: ObjectFilesFactory,
        events: SuperLinkEvents,
        parts: SuperLinkParts,
    ) -> None:
        """Prepare a SuperLink.

        Args:
            config: The arguments of `flower-superlink`.
            states: Creates the state.
            objects: Creates the object store.
            events: The events of this SuperLink, shared by its servicers and the caller.
            parts: What it has beyond Flower's SuperLink.
        """
        super().__init__(config, states)
        self._states = states
        self._objects = objects
        self._events = events
        self._parts = parts
        self.control_port: ControlPort | None = None

    def startup(self) -> None:
        """Take over what an earlier process has left, start the three APIs, and report that they accept calls."""
        state = self._states.state()
        if self._parts.first:
            state.fail_running_tasks("The SuperLink was stopped or restarted during the run.")
        self._events.restore(state.messages)
        self._events.liveness.on_gone = self._on_node_gone
        self._events.is_responsive = state.is_responsive
        super().startup()
        self._parts.partitions.keep_updating()
        self._events.on_serving()

    def shutdown(self) -> None:
        """Answer the held calls, each of which would keep its thread and the process alive, and stop the servers."""
        self._events.notifier.close()
        self._parts.partitions.close()
        if self.control_port is not None:
            self.control_port.close()
        super().shutdown()

    def _on_node_gone(self, node_id: int) -> None:
        state = self._states.state()
        if state.deactivate_node(node_id):
            log(WARNING, "SuperNode %s is offline: its connection was lost, and it did not call again", node_id)
            self._parts.partitions.gone(node_id, ended=False)
            self._events.notify_offline(state.messages, node_id)

    def _on_node_removed(self, node_id: int) -> None:
        """Free the name and the partition of a node that was removed, and answer its held calls."""
        with suppress(OSError):  # a full disk is no reason to keep the node
            self._parts.records.forget(node_id)
        with suppress(OSError):
            self._parts.partitions.remove(node_id)
        self._events.notify_removed(self._states.state().messages, node_id)

    def _start_control_api(self) -> None:
        """Start the API for the `flwr` command, over gRPC as Flower's `run_control_api_grpc` does, and over HTTP."""
        config = self.config
        servicer = EventControlServicer(
            self._states,
            self._objects,
            config.authn_plugin,
            config.artifact_provider,
            config.fleet_api_type,
            self._events,
            self._on_node_removed,
        )
        server = generic_create_grpc_server(
            servicer_and_add_fn=(servicer, add_ControlServicer_to_server),
            server_address=LOOPBACK,
            interceptors=[
                RpcErrorTranslationServerInterceptor(),
                ControlAccountAuthInterceptor(config.authn_plugin),
                create_control_runtime_version_server_interceptor(),
            ],
        )
        description = FleetDescriber(self._states, self._parts.partitions, self._parts.records)
        server.add_generic_rpc_handlers((description.handler(),))
        server.start()
        self.grpc_servers.append(server)
        self.control_port = ControlPort(
            self._parts.control_socket or config.control_address,
            server.bound_address,
            ControlHttp(servicer, config.authn_plugin),
            None if config.insecure else (str(config.ssl_certfile), str(config.ssl_keyfile)),
        )
        log(INFO, "Flower Deployment Runtime: Starting Control API on %s", self.control_port.address)

    def _start_runtime_api(self) -> None:
        """Start the API for ServerApps and executors, as Flower's `run_runtime_api_grpc` does."""
        config, secret = self.config, self.config.superexec_auth_secret
        if secret is not None and config.runtime_certificates is None:
            log(
                WARNING,
                "SuperExec auth is enabled on insecure Runtime API transport. "
                "Request metadata confidentiality is not guaranteed without TLS.",
            )
        interceptors = [
            RpcErrorTranslationServerInterceptor(),
            create_superlink_runtime_token_auth_server_interceptor(state_provider=self._states.state),
        ]
        if secret is not None:
            interceptors.append(
                create_superlink_runtime_superexec_auth_server_interceptor(
                    state_provider=self._states.state, master_secret=secret
                )
            )
        interceptors.append(create_superlink_runtime_version_server_interceptor())
        servicer = EventRuntimeServicer(self._states, self._objects, self._events)
        server = generic_create_grpc_server(
            servicer_and_add_fn=(servicer, add_RuntimeServicer_to_server),
            server_address=config.runtime_address,
            certificates=config.runtime_certificates,
            interceptors=interceptors,
        )
        log(INFO, "Flower Deployment Runtime: Starting Runtime API on %s", server.bound_address)
        server.start()
        self._runtime_server = server
        self.grpc_servers.append(server)

    def _start_legacy_fleet_grpc_rere(self, fleet_address: str) -> None:
        """Start the API for SuperNodes, as Flower's `_run_fleet_api_grpc_rere` does."""
        config = self.config
        servicer = EventFleetServicer(
            self._states,
            self._objects,
            config.enable_supernode_auth,
            self._events,
            self._parts.run_dir,
            self._parts.partitions,
            self._parts.records,
            self._parts.seed,
        )
        server = generic_create_grpc_server(
            servicer_and_add_fn=(servicer, add_FleetServicer_to_server),
            server_address=fleet_address,
            max_concurrent_workers=MAX_CALLS,
            certificates=config.certificates,
            interceptors=[
                RpcErrorTranslationServerInterceptor(),
                NodeAuthInterceptor(self._states),
                create_fleet_runtime_version_server_interceptor(),
            ],
        )
        log(INFO, "Flower Deployment Runtime: Starting Fleet API (gRPC-rere) on %s", server.bound_address)
        server.start()
        self.grpc_servers.append(server)


def create_lifespan(
    config: SuperLinkLifespanConfig, events: SuperLinkEvents, files: MessageFiles, parts: SuperLinkParts
) -> EventLifespan:
    """Return a SuperLink that is ready to start; the arguments are those of `EventLifespan` and `run_superlink`.

    Raises:
        ValueError: The arguments ask for something that this SuperLink cannot do.
    """
    if config.enable_http_api or config.enable_event_log:
        raise ValueError(
            "--enable-http-api and event logs are not supported: remove these arguments. "
            "The Control API speaks HTTP without one."
        )
    database = config.database
    if database == FLWR_IN_MEMORY_DB_NAME or ("://" in database and not database.lower().startswith("sqlite://")):
        raise ValueError(f"--database is {database!r}, which is not an SQLite database: give the path of a file.")
    objects = ObjectFilesFactory(database, files)
    states = StateFactory(database, get_federation_manager(is_simulation=config.simulation), objects, files)
    return EventLifespan(config, states, objects, events, parts)


def run_superlink(events: SuperLinkEvents, files: MessageFiles, parts: SuperLinkParts) -> None:
    """Run `flower-superlink` with the arguments in `sys.argv`; it ends with `SystemExit`.

    Args:
        events: Gets the SuperLink's events.
        files: Where messages are kept for the process that replaces this one after a crash.
        parts: What it has beyond Flower's SuperLink.
    """
    check_version()
    warn_if_flwr_update_available(process_name="flower-superlink")
    config = _parse_superlink_lifespan_config()
    log(INFO, "Starting Flower SuperLink")
    event(EventType.RUN_SUPERLINK_ENTER)
    lifespan: EventLifespan | None = None
    try:
        lifespan = create_lifespan(config, events, files, parts)
        lifespan.startup()
    except Exception as error:
        if lifespan is not None:
            lifespan.shutdown()
        flwr_exit(ExitCode.SUPERLINK_INVALID_ARGS, str(error))
    # Exit handlers are called in reverse order, so that `shutdown` comes first.
    register_signal_handlers(
        event_type=EventType.RUN_SUPERLINK_LEAVE,
        exit_message="SuperLink terminated gracefully.",
        grpc_servers=lifespan.grpc_servers,
        exit_handlers=[lifespan.shutdown],
    )
    while True:
        signal.pause()
