"""Signatures of a SuperNode, made once a second rather than at every call.

A SuperNode signs the time of each of its calls, and nothing else of them, with its P-384 key. It rounds the time down
to whole seconds, so that one signature serves all calls of a second, and the SuperLink has less to verify
(`node_auth`). That is Flower's protocol: a stock SuperLink accepts any signed time of the last minutes.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import grpc
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.constant import PUBLIC_KEY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from flwr.supercore.primitives.asymmetric import (
    public_key_to_bytes,
    sign_message,
)

NodeKeys = tuple[ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey]


def _now() -> datetime:
    return datetime.now(UTC)


class SigningInterceptor(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc] # grpc has no types
    """Signs each call as Flower's `NodeAuthClientInterceptor` does, with one signature for all calls of a second."""

    def __init__(self, keys: NodeKeys, now: Callable[[], datetime] = _now) -> None:
        """Sign with a pair of keys.

        Args:
            keys: The node's private and public key.
            now: Returns the time, in UTC.
        """
        self._private_key, public_key = keys
        self._public_key = public_key_to_bytes(public_key)
        self._now = now
        self._signed = ("", b"")  # the last time and its signature: one value, because threads share it

    def intercept_unary_unary(
        self, continuation: Callable[[Any, Any], Any], client_call_details: Any, request: Any
    ) -> Any:
        """Add public key, time and signature to the metadata of one call."""
        timestamp, signature = self._sign(self._now().replace(microsecond=0).isoformat())
        metadata = [
            *(client_call_details.metadata or ()),
            (PUBLIC_KEY_HEADER, self._public_key),
            (TIMESTAMP_HEADER, timestamp),
            (SIGNATURE_HEADER, signature),
        ]
        return continuation(client_call_details._replace(metadata=metadata), request)

    def _sign(self, timestamp: str) -> tuple[str, bytes]:
        signed = self._signed
        if signed[0] != timestamp:
            self._signed = signed = (timestamp, sign_message(self._private_key, timestamp.encode("ascii")))
        return signed
