"""The log names each caller that the Fleet API refuses, with address, key and reason, over real gRPC."""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from flwr.client.grpc_rere_client.node_auth_client_interceptor import NodeAuthClientInterceptor
from flwr.common.constant import PUBLIC_KEY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from flwr.common.logger import FLOWER_LOGGER
from flwr.proto import fleet_pb2, heartbeat_pb2, node_pb2
from flwr.proto.fleet_pb2_grpc import FleetStub, add_FleetServicer_to_server
from flwr.server.superlink.fleet.grpc_rere.fleet_servicer import FleetServicer
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.supercore.date import now
from flwr.supercore.interceptors import RpcErrorTranslationServerInterceptor
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
from flwr.superlink.federation import NoOpFederationManager

from bouquet.contract.keys import fingerprint
from bouquet.flower.node_auth import NodeAuthInterceptor

KEYS = generate_key_pairs()
KEY = public_key_to_bytes(KEYS[1])
Connect = Callable[..., FleetStub]


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Connect]:
    """A Fleet API that knows no node, and a way to connect to it."""
    objects = ObjectStoreFactory()
    states = LinkStateFactory(":flwr-in-memory:", NoOpFederationManager(), objects)
    server = grpc.server(
        ThreadPoolExecutor(4), interceptors=[RpcErrorTranslationServerInterceptor(), NodeAuthInterceptor(states)]
    )
    add_FleetServicer_to_server(FleetServicer(states, objects, enable_supernode_auth=True), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    channels: list[grpc.Channel] = []

    def to(*interceptors: grpc.UnaryUnaryClientInterceptor) -> FleetStub:
        channels.append(grpc.intercept_channel(grpc.insecure_channel(f"127.0.0.1:{port}"), *interceptors))
        return FleetStub(channels[-1])

    yield to
    for channel in channels:
        channel.close()
    server.stop(None)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """The line about the one refusal."""
    monkeypatch.setattr(FLOWER_LOGGER, "propagate", True)
    caplog.set_level(logging.WARNING)

    def text() -> str:
        (line,) = [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]
        return line

    return text


ACTIVATE = fleet_pb2.ActivateNodeRequest(public_key=KEY, heartbeat_interval=30)
HEARTBEAT = heartbeat_pb2.SendNodeHeartbeatRequest(node=node_pb2.Node(node_id=7), heartbeat_interval=30)
SIGNED = ((PUBLIC_KEY_HEADER, KEY), (TIMESTAMP_HEADER, now().isoformat()))


def test_a_key_that_is_not_enrolled(connect: Connect, logged: Callable[[], str]) -> None:
    with pytest.raises(grpc.RpcError):
        connect(NodeAuthClientInterceptor(*KEYS)).ActivateNode(ACTIVATE)
    line = logged()
    assert line.startswith("bouquet: refused ipv4:127.0.0.1:")
    assert line.endswith(f" with key {fingerprint(KEY)}: its key is not enrolled")


def test_a_node_that_would_register_itself(connect: Connect, logged: Callable[[], str]) -> None:
    with pytest.raises(grpc.RpcError):
        connect(NodeAuthClientInterceptor(*KEYS)).RegisterNode(fleet_pb2.RegisterNodeFleetRequest(public_key=KEY))
    assert logged().endswith(f" with key {fingerprint(KEY)}: it has no key that is enrolled")


@pytest.mark.parametrize(
    ("metadata", "who", "why"),
    [
        ((), "without a key", "Missing authentication metadata"),
        ((*SIGNED, (SIGNATURE_HEADER, b"forged")), f"with key {fingerprint(KEY)}", "Invalid signature"),
        (
            ((PUBLIC_KEY_HEADER, b"none"), *SIGNED[1:], (SIGNATURE_HEADER, b"forged")),
            "with a malformed key",
            "Invalid authentication metadata: ",
        ),
    ],
)
def test_metadata_that_proves_nothing(
    metadata: tuple[tuple[str, str | bytes], ...], who: str, why: str, connect: Connect, logged: Callable[[], str]
) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        connect().SendNodeHeartbeat(HEARTBEAT, metadata=metadata)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert f" {who}: {why}" in logged()


def test_a_node_id_that_is_not_its_own(connect: Connect, logged: Callable[[], str]) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        connect(NodeAuthClientInterceptor(*KEYS)).SendNodeHeartbeat(HEARTBEAT)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert logged().endswith(f" with key {fingerprint(KEY)}: Invalid node ID")
