import datetime
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from flwr.client.grpc_rere_client import node_auth_client_interceptor as client_auth
from flwr.common.constant import PUBLIC_KEY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from flwr.server.superlink.fleet.grpc_rere import node_auth_server_interceptor as server_auth
from flwr.supercore.primitives.asymmetric import generate_key_pairs

from bouquet.flower import signatures


@pytest.fixture(autouse=True)
def flower_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (
        (client_auth, "now"),
        (client_auth, "sign_message"),
        (server_auth, "bytes_to_public_key"),
        (server_auth, "verify_signature"),
    ):
        monkeypatch.setattr(module, name, getattr(module, name))


class Details(SimpleNamespace):
    def _replace(self, metadata: list[tuple[str, Any]]) -> "Details":
        return Details(metadata=metadata)


def signed_calls(times: list[datetime.datetime], monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    moments = iter(times)
    monkeypatch.setattr(client_auth, "now", lambda: next(moments))
    signatures.sign_once_a_second()
    interceptor = client_auth.NodeAuthClientInterceptor(*generate_key_pairs())
    return [
        dict(interceptor.intercept_unary_unary(lambda details, _: details.metadata, Details(metadata=[]), None))
        for _ in times
    ]


def answer_to(metadata: dict[str, Any]) -> str:
    interceptor = server_auth.NodeAuthServerInterceptor(cast(Any, None))
    details = SimpleNamespace(method="/flwr.proto.Fleet/PullMessages", invocation_metadata=list(metadata.items()))
    handler = interceptor.intercept_service(
        lambda _: SimpleNamespace(request_deserializer=None, response_serializer=None), details
    )
    said: list[str] = []

    class Context:
        def abort(self, code: grpc.StatusCode, message: str) -> None:
            said.append(message)
            raise RuntimeError

    if "terminate" in handler.unary_unary.__qualname__:
        with pytest.raises(RuntimeError):
            handler.unary_unary(None, Context())
    return said[0] if said else "accepted"


def test_calls_of_one_second_share_a_signature_that_flower_accepts(monkeypatch: pytest.MonkeyPatch) -> None:
    start = datetime.datetime.now(datetime.UTC).replace(microsecond=100) - datetime.timedelta(seconds=2)
    calls = signed_calls([start, start + datetime.timedelta(seconds=0.5)], monkeypatch)
    later = signed_calls([start + datetime.timedelta(seconds=1.5)], monkeypatch)[0]
    assert calls[0] == calls[1]
    assert later[SIGNATURE_HEADER] != calls[0][SIGNATURE_HEADER]
    assert {answer_to(call) for call in (*calls, later)} == {"accepted"}


def test_a_remembered_signature_is_accepted_for_its_key_and_time_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.datetime.now(datetime.UTC)
    mine, theirs = signed_calls([now], monkeypatch)[0], signed_calls([now], monkeypatch)[0]
    signatures.verify_once()
    assert [answer_to(call) for call in (mine, theirs, mine)] == ["accepted"] * 3
    earlier = (now - datetime.timedelta(seconds=1)).replace(microsecond=0).isoformat()
    assert answer_to(mine | {PUBLIC_KEY_HEADER: theirs[PUBLIC_KEY_HEADER]}) == "Invalid signature"
    assert answer_to(mine | {TIMESTAMP_HEADER: earlier}) == "Invalid signature"


def test_a_remembered_signature_grows_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    call = signed_calls([datetime.datetime.now(datetime.UTC)], monkeypatch)[0]
    signatures.verify_once()
    assert answer_to(call) == "accepted"
    tomorrow = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    monkeypatch.setattr(server_auth, "now", lambda: tomorrow)
    assert answer_to(call) == "Invalid timestamp"
