"""Checks who calls the Fleet API, verifies each signature once, and logs refusals.

A SuperNode signs the time of each call, and nothing else of it, with its P-384 key. To verify every signature was 46 %
of the SuperLink's CPU in a run with many messages. A SuperNode of Bouquet signs whole seconds, so one signature serves
all calls of a second, and this interceptor remembers the signatures that it has found valid. What is accepted is the
same as in stock Flower, which accepts any signed time of the last 305 s.
"""

import datetime
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import grpc
from flwr.common.constant import PUBLIC_KEY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from flwr.server.superlink.fleet.grpc_rere.node_auth_server_interceptor import (
    MAX_TIMESTAMP_DIFF,
    MIN_TIMESTAMP_DIFF,
    NodeAuthServerInterceptor,
    _unary_unary_rpc_terminator,
)
from flwr.supercore.date import now
from flwr.supercore.error import FlowerError
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature
from flwr.supercore.utils import get_metadata_bytes, get_metadata_str

from bouquet.flower.auth_log import log_refusal, refusal_reason

REMEMBERED_SIGNATURES = 4096  # each node makes at most one a second


@lru_cache(REMEMBERED_SIGNATURES)
def is_signed(key: bytes, message: bytes, signature: bytes) -> bool:
    """Return whether the holder of a public key has signed a message.

    Args:
        key: The public key in PEM.
        message: What was signed.
        signature: The signature.

    Raises:
        ValueError: The key is malformed.
    """
    return verify_signature(bytes_to_public_key(key), message, signature)


class NodeAuthInterceptor(NodeAuthServerInterceptor):
    """Flower's interceptor, which verifies each signature once and logs the calls that are refused."""

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler:
        """Return the handler of a call, or one that refuses the call.

        It makes Flower's checks: the call has a key, a time and a signature of the time by the key, and the time is
        recent. Flower's `_wrap_method_handler` checks later, in the call's thread, that the node id belongs to the key.
        """
        if not handler_call_details.method.startswith("/flwr.proto.Fleet/"):
            return continuation(handler_call_details)
        metadata = handler_call_details.invocation_metadata
        key = get_metadata_bytes(metadata, PUBLIC_KEY_HEADER) or b""
        try:
            refusal = _check(
                key, get_metadata_str(metadata, TIMESTAMP_HEADER), get_metadata_bytes(metadata, SIGNATURE_HEADER)
            )
        except Exception as error:  # a header can have any content, and Flower's functions raise many kinds of errors
            refusal = f"Invalid authentication metadata: {error}"
        if refusal:
            return _log_refusals(_unary_unary_rpc_terminator(refusal), key)
        handler = continuation(handler_call_details)
        if handler is None:  # no such method
            return None
        return _log_refusals(self._wrap_method_handler(handler, key), key)


def _check(key: bytes, timestamp: str | None, signature: bytes | None) -> str | None:
    """Return why a caller is refused, or None if it has proved that it holds the key."""
    if not key or not timestamp or not signature:
        return "Missing authentication metadata"
    if not is_signed(key, timestamp.encode("ascii"), signature):
        return "Invalid signature"
    age = now() - datetime.datetime.fromisoformat(timestamp)
    if not MIN_TIMESTAMP_DIFF < age.total_seconds() < MAX_TIMESTAMP_DIFF:
        return "Invalid timestamp"
    return None


def _log_refusals(handler: grpc.RpcMethodHandler, key: bytes) -> grpc.RpcMethodHandler:
    """Return a handler that answers as the given one, and logs when the caller is refused."""

    def serve(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return handler.unary_unary(request, context)
        except FlowerError as error:
            if reason := refusal_reason(error):
                log_refusal(context.peer(), key, reason)
            raise
        except Exception:
            if context.code() is grpc.StatusCode.UNAUTHENTICATED:
                log_refusal(context.peer(), key, _text(context.details()))
            raise

    return grpc.unary_unary_rpc_method_handler(
        serve, request_deserializer=handler.request_deserializer, response_serializer=handler.response_serializer
    )


def _text(details: str | bytes) -> str:
    return details.decode(errors="replace") if isinstance(details, bytes) else details
