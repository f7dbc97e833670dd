"""A line in the SuperLink's log for each call that the Fleet API refused: who called, and why it was refused.

Flower reports the reason to the node only; its own log says at most that something failed. A failure in the TLS
handshake comes earlier: `bouquet.superlink.handshake_log` logs it.
"""

from logging import WARNING

from flwr.common.logger import log
from flwr.supercore.error import ApiErrorCode, FlowerError

from bouquet.contract.keys import fingerprint

REASONS: dict[int, str] = {
    ApiErrorCode.FLEET_SUPERNODE_REGISTRATION_DISABLED: "it has no key that is enrolled",
    ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED: "its key is not enrolled",
}
STILL_ONLINE = "a node with its key is still online"


def refusal_reason(error: FlowerError) -> str | None:
    """Return why a node was refused, or None if the error is not about who called."""
    if error.code not in REASONS:
        return None
    return STILL_ONLINE if "could not be activated" in error.message else REASONS[error.code]


def log_refusal(peer: str, key: bytes, reason: str) -> None:
    """Log that a call was refused.

    Args:
        peer: The caller's address, as gRPC writes it.
        key: The caller's public key in PEM; empty if it sent none.
        reason: Why the call was refused.
    """
    try:
        who = f"with key {fingerprint(key)}" if key else "without a key"
    except ValueError:
        who = "with a malformed key"
    log(WARNING, "bouquet: refused %s %s: %s", peer, who, reason)
