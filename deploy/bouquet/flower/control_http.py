"""The Control API over HTTP, which the `flwr` command speaks from 1.37 on, as an ASGI application.

`POST /v1/control/list-runs` with a serialized request is the call `ListRuns` of the servicer, and so on for each method
of the service: a call over HTTP does exactly what it does over gRPC. Flower 1.34 has routes of its own. They go around
the servicer, and the one that streams logs is missing.
"""

import asyncio
import re
import threading
from collections.abc import Iterator

from fastapi import HTTPException
from flwr.proto.control_pb2 import DESCRIPTOR
from flwr.supercore.error import ApiErrorCode, FlowerError, http_error_translator
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE, PROTOBUF_STREAM_MEDIA_TYPE
from flwr.supercore.protobuf.framing import frame_message
from flwr.supercore.version import package_version
from flwr.superlink.auth_plugin import ControlAuthnPlugin
from flwr.superlink.dependencies.account import AccountAccessDependency
from flwr.superlink.servicer.control.control_account_auth_interceptor import shared_account_info
from flwr.superlink.servicer.control.control_servicer import ControlServicer
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

MAX_REQUEST_BYTES = 64 * 1024**2  # Flower accepts apps of at most 10 MiB
STALL_SECONDS = 30.0  # a client that sends no more of its request for this long is gone
PREFIX = "/v1/control/"


def route(method: str) -> str:
    """Return the path of a method of the service: `ListRuns` is `/v1/control/list-runs`."""
    return PREFIX + re.sub(r"(?<=[a-z])(?=[A-Z])", "-", method).lower()


METHODS: dict[str, MethodDescriptor] = {
    route(method.name): method for method in DESCRIPTOR.services_by_name["Control"].methods
}


class HttpCall:
    """A call as its servicer sees it: in place of gRPC's context."""

    def __init__(self) -> None:
        self._ended = threading.Event()

    def is_active(self) -> bool:
        """Return whether the client still waits for the answer."""
        return not self._ended.is_set()

    def end(self) -> None:
        """Note that the client has left, or has its answer."""
        self._ended.set()


class MessageStream(StreamingResponse):
    """An answer of many messages, each sent as soon as the servicer has it, until the client leaves."""

    def __init__(self, messages: Iterator[Message], call: HttpCall) -> None:
        super().__init__((frame_message(message) for message in messages), media_type=PROTOBUF_STREAM_MEDIA_TYPE)
        self._call = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer, and tell the servicer when the client leaves: its thread may wait for a long time."""
        watch = asyncio.ensure_future(self.listen_for_disconnect(receive))
        watch.add_done_callback(lambda _: self._call.end())
        try:
            await self.stream_response(send)
        finally:
            watch.cancel()


class ControlHttp:
    """Answers the requests of `flwr` by the methods of a Control servicer."""

    def __init__(self, servicer: ControlServicer, authn_plugin: ControlAuthnPlugin) -> None:
        """Prepare to answer.

        Args:
            servicer: The servicer, which also answers over gRPC.
            authn_plugin: Finds the account of a call.
        """
        self._servicer = servicer
        self._account = AccountAccessDependency(authn_plugin)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; Flower's errors become the answers that `flwr` knows."""
        request = Request(scope, receive)
        response = await http_error_translator(request, self._call)
        await response(scope, receive, send)

    async def _call(self, request: Request) -> Response:
        method = accept(request)
        account = await run_in_threadpool(self._account, request)
        message = parse(method, await read_body(request))
        shared_account_info.set(account)  # of this request only: each has its own task, whose context threads copy
        call = HttpCall()
        answer = await run_in_threadpool(getattr(self._servicer, method.name), message, call)
        if method.server_streaming:
            return MessageStream(answer, call)
        return Response(answer.SerializeToString(), media_type=PROTOBUF_MEDIA_TYPE)


def accept(request: Request) -> MethodDescriptor:
    """Return the method that a request calls.

    A web page can make its reader's browser send requests to 127.0.0.1. A browser names the page in `Origin`, and
    sends this content type only after a question that is answered by an error.

    Raises:
        HTTPException: There is no such method, or the request is a browser's.
        FlowerError: It is not a serialized message.
    """
    method = METHODS.get(request.url.path)
    if method is None:
        raise HTTPException(404, f"This SuperLink is Flower {package_version}, which has no {request.url.path}")
    if request.method != "POST":
        raise HTTPException(405, "Only POST is allowed", {"Allow": "POST"})
    if "origin" in request.headers:
        raise HTTPException(403, "Web pages may not call the Control API")
    media_type = request.headers.get("content-type", "")
    if media_type.partition(";")[0].strip().lower() != PROTOBUF_MEDIA_TYPE:
        raise FlowerError(ApiErrorCode.UNSUPPORTED_CONTENT_TYPE, f"Unsupported Content-Type: {media_type!r}")
    return method


async def read_body(request: Request) -> bytes:
    """Return the body of a request.

    Raises:
        HTTPException: It is larger than `MAX_REQUEST_BYTES`, or it did not arrive.
    """
    body = bytearray()
    chunks = request.stream()
    try:
        while chunk := await asyncio.wait_for(anext(chunks, b""), STALL_SECONDS):
            body += chunk
            if len(body) > MAX_REQUEST_BYTES:
                raise HTTPException(413, f"The request is larger than {MAX_REQUEST_BYTES} bytes")
    except (TimeoutError, ClientDisconnect) as error:
        raise HTTPException(408, "The request did not arrive completely") from error
    return bytes(body)


def parse(method: MethodDescriptor, body: bytes) -> Message:
    """Return the request message of a call; raise `FlowerError` if `body` is none."""
    try:
        return GetMessageClass(method.input_type).FromString(body)
    except DecodeError as error:
        raise FlowerError(ApiErrorCode.INVALID_PROTOBUF_PAYLOAD, f"{method.name}: {error}") from error
