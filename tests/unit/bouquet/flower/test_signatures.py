import datetime
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from flwr.common.constant import SIGNATURE_HEADER
from flwr.server.superlink.fleet.grpc_rere import node_auth_server_interceptor as server_auth
from flwr.supercore.primitives.asymmetric import generate_key_pairs

from bouquet.flower.signatures import SigningInterceptor


class Details(SimpleNamespace):
    def _replace(self, metadata: list[tuple[str, Any]]) -> "Details":
        return Details(metadata=metadata)


def signed_calls(times: list[datetime.datetime]) -> list[dict[str, Any]]:
    moments = iter(times)
    interceptor = SigningInterceptor(generate_key_pairs(), now=lambda: next(moments))
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


def test_calls_of_one_second_share_a_signature_that_flower_accepts() -> None:
    start = datetime.datetime.now(datetime.UTC).replace(microsecond=100) - datetime.timedelta(seconds=2)
    first, second, later = signed_calls([start + datetime.timedelta(seconds=seconds) for seconds in (0, 0.5, 1.5)])
    assert first == second
    assert later[SIGNATURE_HEADER] != first[SIGNATURE_HEADER]
    assert {answer_to(call) for call in (first, second, later)} == {"accepted"}
