"""A SuperNode: Flower's parts around a main loop that waits for events instead of sleeping.

The SuperNode works on one message after the other. A SuperLink of ours holds a pull until there is a message, so the
next pull follows an empty one at once. A stock SuperLink answers an empty pull immediately; then the SuperNode pulls
every 3 s, as a stock one does.
"""

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from logging import ERROR, INFO
from typing import NoReturn

from flwr.app import Message
from flwr.app.user_config import UserConfig
from flwr.common.constant import Status, SubStatus
from flwr.common.logger import log
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.address import parse_address
from flwr.supercore.exit import ExitCode, add_exit_handler, flwr_exit, register_signal_handlers
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.object_store import ObjectStore, ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supercore.telemetry import EventType, event
from flwr.supercore.update_check import warn_if_flwr_update_available
from flwr.supernode.cli.flower_supernode import SuperNodeLifespanConfig, _parse_supernode_lifespan_config
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState
from flwr.supernode.start_client_internal import (
    _make_fleet_connection_retry_invoker,
    _pull_and_store_message,
    _push_messages,
)

from bouquet.flower.channels import with_quick_retries
from bouquet.flower.fleet_client import FleetClient, SuperLinkUnreachableError
from bouquet.flower.node_session import HELD_SECONDS, REPLIES, NodeSession
from bouquet.flower.node_state import SteadyNodeStateFactory
from bouquet.flower.supernode_runtime import serve_runtime_api
from bouquet.flower.version import check_version

STOCK_PULL_SECONDS = 3.0
"""Pause after an empty pull that the SuperLink did not hold."""
REPLY_CHECK_SECONDS = 5.0
"""Time between two checks for ClientApps that have died without a word, while the node waits for a reply."""


class MessageLoop:
    """Works on one message after the other: receives it, waits for the reply of the ClientApp, and sends the reply."""

    def __init__(
        self,
        session: NodeSession,
        client: FleetClient,
        state: InMemoryNodeState,
        object_store: ObjectStore,
        node_config: UserConfig,
        trusted_entities: dict[str, str] | None = None,
    ) -> None:
        """Prepare the loop.

        Args:
            session: The SuperNode that it belongs to.
            client: The connection to the SuperLink.
            state: The node's messages, runs and tasks.
            object_store: The objects of its messages.
            node_config: What ClientApps find in `context.node_config`.
            trusted_entities: Public keys, by id, of those whose apps may run. None: every app may.
        """
        self._session = session
        self._client = client
        self._state = state
        self._objects = object_store
        self._node_config = node_config
        self._trusted_entities = trusted_entities
        self._message_id = ""  # of the message that the node works on

    def run(self) -> NoReturn:
        """Work until a signal ends the process, or a call to the SuperLink fails for good."""
        while True:
            self.turn()

    def turn(self) -> None:
        """Pull a message and, if there is one, see to its reply."""
        self._message_id = ""
        start = time.monotonic()
        node_config = self._session.node_config(self._node_config)
        run_id = _pull_and_store_message(
            state=self._state,
            object_store=self._objects,
            node_config=node_config,
            receive=self._receive,
            get_run=partial(self._join_run, node_config),
            get_fab=self._client.get_fab,
            pull_object=self._client.pull_object,
            confirm_message_received=self._client.confirm_message_received,
            trusted_entities=self._trusted_entities,
        )
        if run_id is not None:
            self._session.message_received()
            if self._wait_for_reply(run_id):
                # Sends all replies in the state: one, which is complete, so that it need not wait for an object.
                _push_messages(
                    state=self._state,
                    object_store=self._objects,
                    send=self._client.send,
                    push_object=self._client.push_object,
                )
        elif self._message_id:
            self._abandon()
        self._session.message_answered()
        if run_id is None and (self._message_id or time.monotonic() - start < HELD_SECONDS):
            time.sleep(STOCK_PULL_SECONDS)

    def _receive(self) -> tuple[Message, ObjectTree] | None:
        received = self._client.receive()
        if received is not None:
            self._message_id = received[0].metadata.message_id
            self._session.message_arrived()
        return received

    def _join_run(self, node_config: UserConfig, run_id: int) -> Run:
        """Return a run that is new to this node, and put its number of partitions into the run's node config."""
        run, num_partitions = self._client.join_run(run_id)
        if num_partitions is not None:
            node_config["num-partitions"] = num_partitions
        self._session.watch_run(run_id, self._client.get_run)
        return run

    def _wait_for_reply(self, run_id: int) -> bool:
        """Wait until a reply to the message is complete, then drop every other reply.

        A ClientApp that dies while it hands over its reply leaves an incomplete one; the executor then adds an error
        reply. One that dies right after it may leave a second reply to a message that is answered by then.

        Returns:
            False if the run has ended and there is no reply. The message is dropped.
        """
        missing: dict[str, list[str]] = {}  # by reply: the objects that are not known to be here
        while True:
            notifications = self._session.notifier.count(REPLIES)
            replies = self._replies()
            for reply in replies:
                if reply.metadata.reply_to_message_id == self._message_id and self._is_complete(reply, missing):
                    for other in replies:
                        if other is not reply:
                            self._drop(other.metadata.message_id)
                    return True
            if not self._session.notifier.wait(REPLIES, notifications, REPLY_CHECK_SECONDS):
                # Asking for messages, here for those of no run, has Flower answer for ClientApps without a heartbeat.
                self._state.get_messages(run_ids=[])
                if not self._session.is_watched(run_id):
                    log(INFO, "[RUN %s] The run has ended without a reply to its last message", run_id)
                    self._abandon()
                    return False

    def _replies(self) -> list[Message]:
        """Return all replies that are not sent yet. Flower's `get_messages` would count them as sent."""
        with self._state.lock_msg_store:
            messages = [entry.message for entry in self._state.msg_store.values() if not entry.is_retrieved]
        return [message for message in messages if message.metadata.reply_to_message_id]

    def _is_complete(self, reply: Message, missing: dict[str, list[str]]) -> bool:
        """Return whether all objects of a reply are here; `missing` keeps those that were not at the last call."""
        message_id = reply.metadata.message_id
        if message_id not in missing:
            tree = self._objects.get_object_tree(message_id)
            missing[message_id] = [node.object_id for node in iterate_object_tree(tree)]
        remaining = missing[message_id]
        while remaining and self._objects.get(remaining[-1]) != b"":  # empty: announced, and not here
            remaining.pop()
        return not remaining

    def _abandon(self) -> None:
        """Drop the message that the node works on, and its task: its run has ended, or its objects could not be pulled.

        A ClientApp that had claimed the task would wait for objects that never come, and no other could run.
        """
        self._drop(self._message_id)
        for task in self._state.get_tasks(statuses=[Status.PENDING]):
            self._state.finish_task(task.task_id, SubStatus.STOPPED, "the message was dropped")

    def _drop(self, message_id: str) -> None:
        self._state.delete_messages(message_ids=[message_id])
        self._objects.delete(message_id)


def run_supernode(arguments: Sequence[str], session: NodeSession, at_exit: Callable[[], None]) -> NoReturn:
    """Run a SuperNode until a signal ends the process.

    Args:
        arguments: The arguments of `flower-supernode`. ClientApps run in processes of the executor, whatever
            `--isolation` says, and the Runtime API has no TLS.
        session: What the SuperNode shares with the rest of the process.
        at_exit: Called when a signal ends the process, after the Runtime API was stopped.

    Raises:
        SuperLinkUnreachableError: The SuperNode has given up on the SuperLink.
        FlowerChangedError: Another release of Flower is installed.
    """
    check_version()
    sys.argv = ["flower-supernode", *arguments]
    warn_if_flwr_update_available(process_name="flower-supernode")
    log(INFO, "Starting Flower SuperNode")
    event(EventType.RUN_SUPERNODE_ENTER)
    config = _parse_supernode_lifespan_config()
    client = _fleet_client(config, session)
    object_store_factory = ObjectStoreFactory()
    state_factory = SteadyNodeStateFactory(objectstore_factory=object_store_factory)
    server = serve_runtime_api(config.runtime_api_address, state_factory, object_store_factory, session)
    # Exit handlers are called last one first.
    add_exit_handler(at_exit)
    add_exit_handler(session.notifier.close)  # a held call would keep its thread, and with it the process, for seconds
    register_signal_handlers(
        event_type=EventType.RUN_SUPERNODE_LEAVE,
        exit_message="SuperNode terminated gracefully.",
        grpc_servers=[server],
    )
    state = state_factory.state()
    try:
        with client:
            state.set_node_id(client.node_id)
            log(INFO, "SuperNode ID: %s", client.node_id)
            objects = object_store_factory.store()
            MessageLoop(session, client, state, objects, config.node_config, config.trusted_entities).run()
    except SuperLinkUnreachableError as error:
        log(ERROR, "The SuperNode has given up on the SuperLink: %s", error)
        raise


def _fleet_client(config: SuperNodeLifespanConfig, session: NodeSession) -> FleetClient:
    """Return the connection that the command line asks for; exit if it cannot be made secure as asked for."""
    if config.insecure and config.authentication_keys is not None:
        flwr_exit(
            ExitCode.SUPERNODE_STARTED_WITHOUT_TLS_BUT_NODE_AUTH_ENABLED,
            "A SuperNode with a private key needs TLS: pass `--root-certificates` instead of `--insecure`.",
        )
    root_certificates = None
    if not config.insecure:
        if not isinstance(config.root_certificates, bytes):
            sys.exit("A SuperNode needs `--root-certificates`, or `--insecure`.")
        root_certificates = config.root_certificates
    address = parse_address(config.server_address)
    if address is None:
        flwr_exit(ExitCode.COMMON_ADDRESS_INVALID, f"SuperLink address ({config.server_address}) cannot be parsed.")
    host, port, is_v6 = address
    return FleetClient(
        f"[{host}]:{port}" if is_v6 else f"{host}:{port}",
        root_certificates,
        config.authentication_keys,
        with_quick_retries(
            _make_fleet_connection_retry_invoker(max_retries=config.max_retries, max_wait_time=config.max_wait_time)
        ),
        session.on_online,
        session.on_offline,
        session.partition,
    )
