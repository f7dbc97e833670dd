"""Which calls the interceptor of the Fleet API admits, and how often it verifies a signature."""

import datetime
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from flwr.common.constant import PUBLIC_KEY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from flwr.proto.fleet_pb2 import PullMessagesRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes, sign_message, verify_signature

from bouquet.flower import node_auth
from bouquet.flower.node_auth import NodeAuthInterceptor, is_signed

PULL = "/flwr.proto.Fleet/PullMessages"
NODE_ID = 7
Metadata = dict[str, Any]


class Signer:
    """A node, by its key."""

    def __init__(self) -> None:
        self.private_key, self.public_key = generate_key_pairs()
        self.key = public_key_to_bytes(self.public_key)

    def sign(self, time: datetime.datetime) -> Metadata:
        """The metadata of a call."""
        text = time.isoformat()
        signature = sign_message(self.private_key, text.encode())
        return {PUBLIC_KEY_HEADER: self.key, TIMESTAMP_HEADER: text, SIGNATURE_HEADER: signature}


class Context:
    """A `grpc.ServicerContext` that keeps why a call was aborted."""

    def __init__(self) -> None:
        self.refusal = ""

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        assert code is grpc.StatusCode.UNAUTHENTICATED
        self.refusal = details
        raise RuntimeError

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAUTHENTICATED

    def details(self) -> str:
        return self.refusal

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def call(metadata: Metadata, owner: Signer, method: str = PULL) -> str:
    """Call the Fleet API as node 7, whose key is the owner's; return the answer, or why the call was refused."""
    state = SimpleNamespace(get_node_id_by_public_key=lambda key: NODE_ID if key == owner.key else None)
    interceptor = NodeAuthInterceptor(cast(Any, SimpleNamespace(state=lambda: state)))
    details = SimpleNamespace(method=method, invocation_metadata=list(metadata.items()))
    handler = interceptor.intercept_service(
        lambda _: grpc.unary_unary_rpc_method_handler(lambda request, context: "admitted"), details
    )
    context = Context()
    try:
        return str(handler.unary_unary(PullMessagesRequest(node=Node(node_id=NODE_ID)), context))
    except RuntimeError:
        return context.refusal


@pytest.fixture(autouse=True)
def forget_signatures() -> Iterator[None]:
    is_signed.cache_clear()
    yield
    is_signed.cache_clear()


def test_a_signature_is_verified_once(monkeypatch: pytest.MonkeyPatch) -> None:
    verified: list[bytes] = []

    def count(key: Any, message: bytes, signature: bytes) -> bool:
        verified.append(message)
        return verify_signature(key, message, signature)

    monkeypatch.setattr(node_auth, "verify_signature", count)
    node = Signer()
    first, second = node.sign(now()), node.sign(now() - datetime.timedelta(seconds=1))
    assert [call(first, node), call(first, node), call(second, node), call(first, node)] == ["admitted"] * 4
    assert len(verified) == 2


def test_a_remembered_signature_is_accepted_for_its_key_and_time_alone() -> None:
    time = now().replace(microsecond=0)
    node, other = Signer(), Signer()
    mine, theirs = node.sign(time), other.sign(time)
    assert [call(mine, node), call(theirs, other), call(mine, node)] == ["admitted"] * 3
    earlier = (time - datetime.timedelta(seconds=1)).isoformat()
    assert call(mine | {PUBLIC_KEY_HEADER: other.key}, other) == "Invalid signature"
    assert call(mine | {TIMESTAMP_HEADER: earlier}, node) == "Invalid signature"


def test_a_remembered_signature_grows_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Signer()
    metadata = node.sign(now())
    assert call(metadata, node) == "admitted"
    tomorrow = now() + datetime.timedelta(days=1)
    monkeypatch.setattr(node_auth, "now", lambda: tomorrow)
    assert call(metadata, node) == "Invalid timestamp"


@pytest.mark.parametrize("header", [PUBLIC_KEY_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER])
def test_a_call_without_one_of_the_headers_is_refused(header: str) -> None:
    node = Signer()
    metadata = node.sign(now())
    del metadata[header]
    assert call(metadata, node) == "Missing authentication metadata"


def test_a_wrong_signature_is_refused() -> None:
    node = Signer()
    assert call(node.sign(now()) | {SIGNATURE_HEADER: b"forged"}, node) == "Invalid signature"


@pytest.mark.parametrize(
    ("age_seconds", "answer"),
    [(-60, "Invalid timestamp"), (-3, "admitted"), (290, "admitted"), (320, "Invalid timestamp")],
)
def test_a_signed_time_is_accepted_while_it_is_recent(age_seconds: float, answer: str) -> None:
    node = Signer()
    assert call(node.sign(now() - datetime.timedelta(seconds=age_seconds)), node) == answer


@pytest.mark.parametrize(
    "metadata", [{PUBLIC_KEY_HEADER: b"malformed"}, {TIMESTAMP_HEADER: "yesterday"}, {TIMESTAMP_HEADER: "2026-01-01"}]
)
def test_malformed_headers_are_refused(metadata: Metadata) -> None:
    node = Signer()
    signed = node.sign(now()) | metadata
    if TIMESTAMP_HEADER in metadata:
        signed[SIGNATURE_HEADER] = sign_message(node.private_key, metadata[TIMESTAMP_HEADER].encode())
    assert call(signed, node).startswith("Invalid authentication metadata: ")


def test_the_node_id_of_another_key_is_refused() -> None:
    assert call(Signer().sign(now()), owner=Signer()) == "Invalid node ID"


def test_calls_of_other_services_are_not_checked() -> None:
    assert call({}, Signer(), "/grpc.health.v1.Health/Check") == "admitted"


def test_a_method_that_does_not_exist_stays_unimplemented() -> None:
    details = SimpleNamespace(method=PULL, invocation_metadata=list(Signer().sign(now()).items()))
    assert NodeAuthInterceptor(cast(Any, None)).intercept_service(lambda _: None, details) is None
