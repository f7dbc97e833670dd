"""The port of the Control API: one address for `flwr` over gRPC (to 1.36) and over HTTP (from 1.37).

One thread with an event loop accepts the connections and ends TLS. The first bytes of a connection tell the two
protocols apart, because gRPC begins each connection with HTTP/2's preface. A gRPC connection is passed on to the gRPC
server, which listens on loopback; an HTTP connection is served here by uvicorn's protocol class.
"""

import asyncio
import ipaddress
import socket
import ssl
import threading
from contextlib import suppress
from logging import WARNING
from pathlib import Path
from typing import cast

import anyio.to_thread
import uvicorn
from flwr.common.logger import log
from flwr.supercore.address import parse_address
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from bouquet.superlink.handshake_log import LEFT, refusal_reason

PREFACE = b"PRI * HTTP/2.0\r\n\r\n"
TLS_HANDSHAKE = b"\x16\x03"
UNIX = "unix:"
BACKLOG = 128
MAX_HEAD_BYTES = 64 * 1024
MAX_CONNECTIONS = 512  # further ones wait in the listening socket's queue
GREETING_SECONDS = 10.0  # for the TLS handshake, and again for the head of the first request
THREADS = 1000  # calls at a time, as many as Flower's gRPC servers take
NO_FILES_SECONDS = 1.0
CLOSE_SECONDS = 5.0


class Pipe(asyncio.Protocol):
    """Passes on to `target` what its own connection receives, no faster than `target` takes it."""

    def __init__(self, target: asyncio.Transport) -> None:
        self._target = target

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        self._target.write(data)

    def pause_writing(self) -> None:
        """Receive no more for the own connection: it is full."""
        self._target.pause_reading()

    def resume_writing(self) -> None:
        """Receive for the own connection again."""
        self._target.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the other connection too, once it has sent what it was given."""
        self._target.close()


class Connection(asyncio.Protocol):
    """A client's connection. It reads the head of the first request, then hands over to one of the two protocols."""

    def __init__(self, port: "ControlPort", peer: str) -> None:
        self.ended = asyncio.get_running_loop().create_future()
        self._port = port
        self._peer = peer
        self._head = b""
        self._protocol: asyncio.Protocol | None = None
        self._connecting: asyncio.Task[None] | None = None  # to the gRPC server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first request."""
        self.transport = cast(asyncio.Transport, transport)
        self._timer = asyncio.get_running_loop().call_later(GREETING_SECONDS, self._refuse_silence)

    def data_received(self, data: bytes) -> None:
        """Hand over what the client sends; its first bytes tell to whom."""
        if self._protocol is not None:
            self._protocol.data_received(data)
            return
        self._head += data
        if self._connecting is not None:
            return
        if self._head.startswith(PREFACE):
            self._timer.cancel()
            self.transport.pause_reading()
            self._connecting = asyncio.ensure_future(self._connect())
        elif self._head.startswith(TLS_HANDSHAKE):
            self._refuse("it speaks TLS, which INSECURE=1 switches off")
        elif b"\r\n\r\n" in self._head:
            self._timer.cancel()
            self._hand_over(self._port.http_protocol())
        elif len(self._head) > MAX_HEAD_BYTES:
            self._refuse(f"its first request has a head of more than {MAX_HEAD_BYTES} bytes")

    def _hand_over(self, protocol: asyncio.Protocol) -> None:
        self._protocol = protocol
        protocol.connection_made(self.transport)
        protocol.data_received(self._head)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            upstream, _ = await loop.create_connection(lambda: Pipe(self.transport), *self._port.grpc_address)
        except OSError as error:
            self._refuse(f"the gRPC server does not answer: {error}")
            return
        if self.ended.done():
            upstream.close()
            return
        self._hand_over(Pipe(upstream))
        self.transport.resume_reading()

    def _refuse_silence(self) -> None:
        self._refuse(f"it sent no request within {GREETING_SECONDS:g} s")

    def _refuse(self, reason: str) -> None:
        log_refusal(self._peer, reason)
        self.transport.abort()

    def pause_writing(self) -> None:
        """Hand over that the client takes no more for now."""
        if self._protocol is not None:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Hand over that the client takes more again."""
        if self._protocol is not None:
            self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Hand over that the client has left."""
        self._timer.cancel()
        if self._protocol is not None:
            self._protocol.connection_lost(exc)
        if not self.ended.done():
            self.ended.set_result(None)


class ControlPort:
    """Serves gRPC and HTTP at one address, in one thread of its own, until `close`."""

    def __init__(
        self, address: str, grpc_address: str, app: ASGIApp, certificate: tuple[str, str] | None = None
    ) -> None:
        """Listen, and start to serve.

        Args:
            address: Host and port to listen on, port 0 for any free one; or `unix:` and the path of a socket, which
                only this process's user may open.
            grpc_address: Host and port of the gRPC server, which speaks without TLS.
            app: Answers the HTTP requests.
            certificate: Files of the certificate and its key; None to serve without TLS.

        Raises:
            OSError: The address cannot be used, or the certificate cannot be read.
        """
        self.grpc_address = split(grpc_address)
        self._tls = tls_context(*certificate) if certificate else None
        self._uvicorn = uvicorn.Config(
            app,
            http=H11Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        )
        self._uvicorn.load()
        self._state = ServerState()
        self._listener, self.address = listen(address)
        self._listener.setblocking(False)
        self._loop = asyncio.new_event_loop()
        self._closing = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="control-port", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End all connections and stop to listen."""
        with suppress(RuntimeError):  # it is closed already
            self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(CLOSE_SECONDS)

    def http_protocol(self) -> asyncio.Protocol:
        """Return the protocol of one HTTP connection."""
        return H11Protocol(self._uvicorn, self._state, {})

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
        accepting = asyncio.ensure_future(self._accept())
        await self._closing.wait()
        accepting.cancel()
        self._listener.close()
        for connection in self._connections:
            connection.cancel()
        if self._connections:
            await asyncio.wait(self._connections)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        free = asyncio.Semaphore(MAX_CONNECTIONS)

        def forget(connection: asyncio.Task[None]) -> None:
            self._connections.discard(connection)
            free.release()

        while True:
            await free.acquire()
            try:
                client, address = await loop.sock_accept(self._listener)
            except OSError as error:  # for example, no file descriptor is left
                log(WARNING, "bouquet: the Control API cannot accept a connection: %s", error)
                free.release()
                await asyncio.sleep(NO_FILES_SECONDS)
                continue
            connection = loop.create_task(self._attend(client, peer_name(address)))
            self._connections.add(connection)
            connection.add_done_callback(forget)

    async def _attend(self, client: socket.socket, peer: str) -> None:
        """Serve a connection to its end."""
        connection = Connection(self, peer)
        seconds = GREETING_SECONDS if self._tls else None
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection, client, ssl=self._tls, ssl_handshake_timeout=seconds
            )
        except OSError as error:
            log_refusal(peer, handshake_problem(error))
            return
        try:
            await connection.ended
        finally:
            with suppress(AttributeError):  # Python 3.11 raises it for TLS that was closed twice
                connection.transport.abort()


def listen(address: str) -> tuple[socket.socket, str]:
    """Return a socket that listens at an address, and the address with its port.

    Raises:
        OSError: The address cannot be used.
    """
    if address.startswith(UNIX):
        path = Path(address.removeprefix(UNIX))
        path.unlink(missing_ok=True)  # of an earlier process
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(BACKLOG)
        return listener, address
    host, port = split(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=host == "::")
    return listener, f"{address.rpartition(':')[0]}:{listener.getsockname()[1]}"


def split(address: str) -> tuple[str, int]:
    """Return host and port of an address; raise `OSError` if it is none."""
    if (parsed := parse_address(address)) is None:
        raise OSError(f"{address} is not an address: give host and port")
    return parsed[0], parsed[1]


def tls_context(certificate: str, key: str) -> ssl.SSLContext:
    """Return the TLS of the port: 1.2 or newer, gRPC for clients that offer nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["http/1.1", "h2"])
    return context


def peer_name(address: tuple[str, int] | str) -> str:
    """Return a client's address as gRPC writes it."""
    if isinstance(address, str):  # a Unix socket
        return UNIX
    host, port = address[:2]
    return f"ipv4:{host}:{port}" if ipaddress.ip_address(host).version == 4 else f"ipv6:[{host}]:{port}"  # noqa: PLR2004


def handshake_problem(error: OSError) -> str:
    """Return why a TLS handshake failed."""
    if isinstance(error, ssl.SSLError):
        return refusal_reason(str(error))
    if isinstance(error, ConnectionAbortedError):
        return f"its TLS handshake took more than {GREETING_SECONDS:g} s"
    return LEFT


def log_refusal(peer: str, reason: str) -> None:
    """Log that a client was refused, as `handshake_log` does for gRPC's ports."""
    log(WARNING, "bouquet: refused %s: %s", peer, reason)
