"""Signatures of SuperNodes, made and verified once a second rather than at every call.

A SuperNode signs the time of each of its calls, and nothing else of them, with its P-384 key. Verifying that was 46 %
of the SuperLink's CPU while messages went around. A SuperNode of ours rounds the time down to whole seconds, so that
one signature serves all calls of a second; a SuperLink of ours remembers which signatures it has found valid. Both
speak Flower's protocol, and what is accepted stays the same: Flower takes any signed time of the last 200 s.
"""

import datetime
from collections.abc import Callable
from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric import ec
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature

from bouquet.flower.replacements import replace

REMEMBERED = 4096  # signatures: some a node and second


class Signer:
    """Signs like Flower's `sign_message`, whose last signature it keeps."""

    def __init__(self, sign: Callable[[ec.EllipticCurvePrivateKey, bytes], bytes]) -> None:
        self._sign = sign
        self._last: tuple[ec.EllipticCurvePrivateKey, bytes, bytes] | None = None

    def __call__(self, private_key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
        """Return a signature of the message."""
        last = self._last
        if last is None or last[0] is not private_key or last[1] != message:
            self._last = last = (private_key, message, self._sign(private_key, message))
        return last[2]


@lru_cache(REMEMBERED)
def verified(key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the signature of the message is by the holder of the public key, which is in PEM."""
    return verify_signature(bytes_to_public_key(key), message, signature)


def sign_once_a_second() -> None:
    """Have this SuperNode's calls of one second share a signature."""
    module = "flwr.client.grpc_rere_client.node_auth_client_interceptor"

    def now() -> datetime.datetime:
        return stock_now().replace(microsecond=0)

    stock_now: Callable[[], datetime.datetime] = replace(module, "now", now)
    replace(module, "sign_message", Signer(replace(module, "sign_message", None)))


def verify_once() -> None:
    """Have this SuperLink verify each signature once."""
    module = "flwr.server.superlink.fleet.grpc_rere.node_auth_server_interceptor"
    replace(module, "bytes_to_public_key", bytes)  # the key goes to `verify_signature` alone, which reads it now
    replace(module, "verify_signature", verified)
