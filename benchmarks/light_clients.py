"""Light clients: nodes without ClientApps, many in one process, which reply to each message at once.

Each is a real node to the SuperLink: it has a connection, a key and a partition-id of its own, makes the calls of a
SuperNode through the SuperNode's own `FleetClient`, and has its own threads: one pulls messages, one sends heartbeats,
one waits for the end of the run. Only the ClientApp is missing. `benchmarks.scale` starts them.
"""

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any
from unittest.mock import patch

import grpc
import numpy as np
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

from bouquet.flower import channels
from bouquet.flower.fleet_client import FleetClient, SuperLinkUnreachableError
from bouquet.flower.messages import deflated, with_message_id
from bouquet.flower.node_session import NodeSession
from bouquet.flower.partition_interceptor import Partition

RESTART_SECONDS = 3.0
"""Time until a node that has given up starts again, about as a container does."""
START_SECONDS = 0.02
"""Time between the starts of two nodes."""
PULL_TRIES, PULL_PAUSE_SECONDS = 20, 1.0
MODEL_BYTES = 64 * 1024
"""A message of at least this size is a model: the reply is one of the same size."""


class Tally:
    """What a process's light clients have seen since the last `take`. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._online: set[int] = set()
        self._slowest = 0.0
        self._clear()

    def called(self, size: int) -> None:
        """Count a call that was answered, and the bytes of its request and response."""
        with self._lock:
            self._counts["calls"] += 1
            self._counts["bytes"] += size

    def heartbeat(self, seconds: float, failure: str) -> None:
        """Count a heartbeat, how long its answer took, and why it failed; empty if it did not."""
        with self._lock:
            self._counts["heartbeats failed" if failure else "heartbeats"] += 1
            if failure:
                self._reasons[f"heartbeat: {failure}"] += 1
            self._slowest = max(self._slowest, seconds)

    def replied(self) -> None:
        """Count a reply."""
        with self._lock:
            self._counts["replies"] += 1

    def set_online(self, partition_id: int, online: bool, reason: str = "") -> None:
        """Note that a node is online, or that it has given up for a reason."""
        with self._lock:
            if online:
                self._online.add(partition_id)
            else:
                self._online.discard(partition_id)
                self._reasons[reason[:100]] += 1

    def take(self) -> dict[str, Any]:
        """Return the counts and start again from 0; `online` is the number of nodes that are online now."""
        with self._lock:
            taken = {
                **self._counts,
                "online": len(self._online),
                "slowest heartbeat": round(self._slowest, 3),
                "failures": dict(self._reasons),
            }
            self._clear()
            return taken

    def _clear(self) -> None:
        self._counts: Counter[str] = Counter({"calls": 0, "bytes": 0, "heartbeats": 0, "heartbeats failed": 0})
        self._reasons: Counter[str] = Counter()
        self._slowest = 0.0


class _OneTry:
    """A retry invoker that does not retry, so that every failure is counted."""

    max_tries = 1

    def invoke(self, method: Callable[[Any], Any], request: Any) -> Any:
        """Make the call."""
        return method(request)


class _TallyingClient(FleetClient):
    """A SuperNode's connection that counts its calls and heartbeats."""

    tally: Tally

    def _call(self, method: Callable[[Any], Any], request: Any) -> Any:
        try:
            response = super()._call(method, request)
        except SuperLinkUnreachableError as error:
            raise SuperLinkUnreachableError(f"{type(request).__name__}: {error}") from error
        message = response[0] if isinstance(response, tuple) else response
        self.tally.called(request.ByteSize() + message.ByteSize())
        return response

    def _send_heartbeat(self) -> bool:
        start, failure = time.monotonic(), "unknown node"
        try:
            if super()._send_heartbeat():
                failure = ""
            return not failure
        except grpc.RpcError as error:
            failure = error.code().name
            raise
        finally:
            self.tally.heartbeat(time.monotonic() - start, failure)


class LightClient:
    """One node.

    Args:
        address: `host:port` of the Fleet API.
        root_certificates: The CA's certificate in PEM; None without TLS.
        private_key: The node's enrolled key; None: the node registers itself.
        partition_id: The partition that it claims to hold.
        tally: What it counts.
    """

    def __init__(
        self, address: str, root_certificates: bytes | None, private_key: bytes | None, partition_id: int, tally: Tally
    ) -> None:
        self._address, self._root_certificates = address, root_certificates
        key: Any = load_ssh_private_key(private_key, password=None) if private_key else None
        self._keys = (key, key.public_key()) if key else None
        self._partition_id = partition_id
        self._tally = tally

    def run(self) -> None:
        """Stay online for ever: a node that gives up starts again after `RESTART_SECONDS`."""
        while True:
            try:
                with self._connect() as client:
                    self._tally.set_online(self._partition_id, True)
                    self._serve(client)
            except Exception as error:  # one of Flower's private ones, too
                self._tally.set_online(self._partition_id, False, str(error))
            time.sleep(RESTART_SECONDS)

    def _connect(self) -> FleetClient:
        client = _TallyingClient(
            self._address,
            self._root_certificates,
            self._keys,
            _OneTry(),  # type: ignore[arg-type]  # as much of a retry invoker as a FleetClient uses
            partition=Partition(self._partition_id),
        )
        client.tally = self._tally
        return client

    def _serve(self, client: FleetClient) -> None:
        session = NodeSession()
        while True:
            received = client.receive()
            if received is None:
                continue
            message, tree = received
            run_id = message.metadata.run_id
            if not session.is_watched(run_id):
                run, _ = client.join_run(run_id)
                client.get_fab(run.fab_hash, run_id)
                session.watch_run(run_id, client.get_run)
            size = sum(_pull(client, run_id, object_id) for object_id in dict.fromkeys(_object_ids(tree)))
            client.confirm_message_received(run_id, message.metadata.message_id)
            self._reply(client, message, size if size >= MODEL_BYTES else 0)

    def _reply(self, client: FleetClient, message: Message, size: int) -> None:
        """Reply with one number, and `size` bytes that no other node has, as a trained model would be."""
        content = RecordDict({"metrics": MetricRecord({"one": 1})})
        if size:
            content["arrays"] = ArrayRecord([np.frombuffer(random.randbytes(size), np.uint8)])  # noqa: S311
        reply = with_message_id(Message(content, reply_to=message))
        tree, objects = deflated(reply)
        missing, session_id = client.send(reply, tree, 0.0)
        for object_id, part in objects.items():  # parts first: with the message itself, the reply may be complete
            if object_id in missing:
                client.push_object(message.metadata.run_id, session_id, object_id, part)
        self._tally.replied()


def _object_ids(tree: Any) -> Iterator[str]:
    for child in tree.children:
        yield from _object_ids(child)
    yield tree.object_id


def _pull(client: FleetClient, run_id: int, object_id: str) -> int:
    """Return the size of an object; waits for one that is still on its way, as a SuperNode does."""
    for _ in range(PULL_TRIES):
        try:
            return len(client.pull_object(run_id, object_id))
        except SuperLinkUnreachableError:
            raise
        except Exception:  # Flower's `ObjectUnavailableError`, which is private
            time.sleep(PULL_PAUSE_SECONDS)
    raise TimeoutError(f"object {object_id} did not arrive")


def serve(
    orders: Connection, address: str, root_certificates: bytes | None, nodes: Sequence[tuple[int, bytes | None]]
) -> None:
    """Run light clients in this process, and send a tally for each order, until the other end is closed.

    Args:
        orders: The connection to the process that measures.
        address: `host:port` of the Fleet API.
        root_certificates: The CA's certificate in PEM; None without TLS.
        nodes: The partition-id and the private key of each node.
    """
    tally = Tally()
    # Otherwise gRPC would share one connection among all channels of the process.
    with patch.object(channels, "OPTIONS", (*channels.OPTIONS, ("grpc.use_local_subchannel_pool", 1))):
        for partition_id, key in nodes:
            client = LightClient(address, root_certificates, key, partition_id, tally)
            threading.Thread(target=client.run, daemon=True).start()
            time.sleep(START_SECONDS)
        try:
            while orders.recv():
                orders.send(tally.take())
        except EOFError:
            pass
        os._exit(0)  # thousands of threads wait for calls
