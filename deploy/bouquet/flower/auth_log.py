"""Who was turned away from the Fleet API, and why: a line for each in the SuperLink's log.

Flower tells the node, and its own log at most that something failed. What fails before, at TLS, `bouquet.superlink.handshake_log`
tells.
"""

from collections.abc import Callable
from logging import WARNING
from typing import Any

import grpc
from flwr.common.constant import PUBLIC_KEY_HEADER
from flwr.common.logger import log
from flwr.server.superlink.fleet.grpc_rere.node_auth_server_interceptor import NodeAuthServerInterceptor
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.utils import get_metadata_bytes

from bouquet.contract.keys import fingerprint
from bouquet.flower.replacements import replace

REFUSALS: dict[int, str] = {
    ApiErrorCode.FLEET_SUPERNODE_REGISTRATION_DISABLED: "it has no key that is enrolled",
    ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED: "its key is not enrolled",
}
STILL_ONLINE = "a node with its key is still online"


class TellingInterceptor(NodeAuthServerInterceptor):
    """As Flower's, and says whom it refused."""

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler:
        """Let a call through or not, as Flower does."""
        key = get_metadata_bytes(handler_call_details.invocation_metadata, PUBLIC_KEY_HEADER) or b""
        try:
            handler = super().intercept_service(continuation, handler_call_details)
        except Exception as error:  # a header that is no key, or no time
            handler = _terminator(f"Invalid authentication metadata: {error}")
        if handler is None or handler.unary_unary is None:
            return handler
        serve = handler.unary_unary

        def serve_or_tell(request: Any, context: grpc.ServicerContext) -> Any:
            try:
                return serve(request, context)
            except FlowerError as error:
                if error.code in REFUSALS:
                    online = "could not be activated" in error.message
                    _tell(context, key, STILL_ONLINE if online else REFUSALS[error.code])
                raise
            except Exception:
                if context.code() is grpc.StatusCode.UNAUTHENTICATED:
                    _tell(context, key, context.details())
                raise

        return grpc.unary_unary_rpc_method_handler(
            serve_or_tell,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


def _terminator(message: str) -> grpc.RpcMethodHandler:
    def terminate(request: Any, context: grpc.ServicerContext) -> Any:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, message)

    return grpc.unary_unary_rpc_method_handler(terminate)


def _tell(context: grpc.ServicerContext, key: bytes, why: str | bytes) -> None:
    try:
        who = f"with key {fingerprint(key)}" if key else "without a key"
    except ValueError:
        who = "with a key that is none"
    reason = why.decode(errors="replace") if isinstance(why, bytes) else why
    log(WARNING, "bouquet: refused %s %s: %s", context.peer(), who, reason)


def install() -> None:
    """Put the interceptor in the place of Flower's own."""
    replace("flwr.superlink.cli.flower_superlink", "NodeAuthServerInterceptor", TellingInterceptor)
