"""One port for gRPC and HTTP, with and without TLS: real clients, and clients that misbehave."""

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from bouquet.contract.tls_files import CA, SERVER, SERVER_KEY
from bouquet.flower import control_port
from bouquet.flower.control_port import ControlPort
from bouquet.oneshot.certificates import ensure
from bouquet.polling import poll_until
from bouquet.settings.oneshot import CertificateSettings
from bouquet.superlink.handshake_log import LEFT, NO_TLS, UNTRUSTED

UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
MIB = 1024**2


async def length(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that answers the length of the request's body."""
    body = await Request(scope, receive).body()
    await PlainTextResponse(f"{scope['scheme']} {len(body)}")(scope, receive, send)


def certificates(folder: Path) -> tuple[Path, Path, Path]:
    """A new CA, and a certificate with its key."""
    folders = {f"BOUQUET_{kind.upper()}_DIR": str(folder / kind) for kind in ("authority", "server", "identity")}
    ensure(CertificateSettings.read(folders))
    return folder / "server" / CA, folder / "server" / SERVER, folder / "server" / SERVER_KEY


class Served:
    """A port, and the gRPC server behind it, which answers what it was sent."""

    def __init__(self, folder: Path, tls: bool) -> None:
        self.ca, certificate, key = certificates(folder)
        self.tls = tls
        self.server = grpc.server(ThreadPoolExecutor(16), options=UNLIMITED)
        echo = grpc.unary_unary_rpc_method_handler(lambda request, context: request)
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Test", {"Echo": echo}),))
        backend = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()
        self.port = ControlPort("127.0.0.1:0", backend, length, (str(certificate), str(key)) if tls else None)

    @property
    def host(self) -> tuple[str, int]:
        return "127.0.0.1", int(self.port.address.rpartition(":")[2])

    def channel(self) -> grpc.Channel:
        """A gRPC connection of its own."""
        options = [*UNLIMITED, ("grpc.use_local_subchannel_pool", 1)]
        if not self.tls:
            return grpc.insecure_channel(self.port.address, options)
        return grpc.secure_channel(self.port.address, grpc.ssl_channel_credentials(self.ca.read_bytes()), options)

    def echo(self, message: bytes) -> bytes:
        """Send a message over gRPC, and return the answer."""
        with self.channel() as channel:
            answer: bytes = channel.unary_unary("/Test/Echo")(message, timeout=30)
            return answer

    def post(self, body: Any) -> str:
        """Send a body over HTTP, and return the answer."""
        scheme, verify = ("https", ssl.create_default_context(cafile=self.ca)) if self.tls else ("http", False)
        return httpx.post(f"{scheme}://{self.port.address}/", content=body, verify=verify, timeout=30).text

    def connect(self) -> socket.socket:
        """A bare connection, without TLS."""
        return socket.create_connection(self.host, 10)

    def close(self) -> None:
        self.port.close()
        self.server.stop(None)


@pytest.fixture(params=[True, False], ids=["tls", "plain"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    found = Served(tmp_path, request.param)
    yield found
    found.close()


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[Served]:
    found = Served(tmp_path, True)
    yield found
    found.close()


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Served]:
    found = Served(tmp_path, False)
    yield found
    found.close()


@pytest.fixture
def refusals(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the port logs."""
    lines: list[str] = []

    def log(level: int, text: str, *arguments: object) -> None:
        assert level == logging.WARNING
        lines.append(text % arguments)

    monkeypatch.setattr(control_port, "log", log)
    return lines


def refused(lines: list[str], reason: str) -> None:
    """Wait for a refusal that names its peer and this reason."""
    assert poll_until(lambda: lines, 10, 0.02)
    peer, _, why = lines[0].removeprefix("bouquet: refused ipv4:127.0.0.1:").partition(": ")
    assert peer.isdigit()
    assert why == reason


def closed_by_peer(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_grpc_and_http_are_served_at_one_address(served: Served) -> None:
    assert served.echo(b"hello") == b"hello"
    assert served.post(b"hello") == f"{'https' if served.tls else 'http'} 5"


def test_messages_that_are_larger_than_all_buffers_pass_both_ways(served: Served) -> None:
    message = bytes(range(256)) * (32 * MIB // 256)
    assert served.echo(message) == message
    assert served.post(message).endswith(f" {32 * MIB}")


def test_a_body_in_pieces_passes(served: Served) -> None:
    assert served.post(bytes(1000) for _ in range(100)).endswith(" 100000")


def test_many_clients_of_both_kinds_are_served_at_a_time(served: Served) -> None:
    with ThreadPoolExecutor(20) as pool:
        echoes = [pool.submit(served.echo, b"x" * 10000) for _ in range(20)]
        posts = [pool.submit(served.post, b"x" * 10000) for _ in range(20)]
        assert {len(call.result(30)) for call in echoes} == {10000}
        assert {call.result(30).split()[1] for call in posts} == {"10000"}


def test_a_client_that_offers_both_protocols_gets_http(secure: Served) -> None:
    context = ssl.create_default_context(cafile=secure.ca)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with context.wrap_socket(secure.connect(), server_hostname="127.0.0.1") as client:
        assert client.selected_alpn_protocol() == "http/1.1"


def test_a_client_that_offers_no_protocol_is_served(secure: Served) -> None:
    context = ssl.create_default_context(cafile=secure.ca)
    with context.wrap_socket(secure.connect(), server_hostname="127.0.0.1") as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("first_bytes", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
def test_a_client_that_sends_one_byte_at_a_time_is_served(plain: Served, first_bytes: bytes) -> None:
    with plain.connect() as client:
        for byte in first_bytes:
            client.sendall(bytes([byte]))
            time.sleep(0.002)
        assert client.recv(9)


def distrust(served: Served) -> None:
    context = ssl.create_default_context()
    with pytest.raises(ssl.SSLError), served.connect() as client:
        context.wrap_socket(client, server_hostname="127.0.0.1")


def speak_http_without_tls(served: Served) -> None:
    with served.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\n\r\n")
        assert closed_by_peer(client)


def speak_grpc_without_tls(served: Served) -> None:
    with served.connect() as client:
        client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert closed_by_peer(client)


def leave(served: Served) -> None:
    served.connect().close()


@pytest.mark.parametrize(
    ("misbehave", "reason"),
    [
        (distrust, UNTRUSTED),
        (speak_http_without_tls, NO_TLS),
        (speak_grpc_without_tls, NO_TLS),
        (leave, LEFT),
    ],
)
def test_a_client_that_fails_at_tls_is_logged_with_its_address_and_the_reason(
    secure: Served, refusals: list[str], misbehave: Callable[[Served], None], reason: str
) -> None:
    misbehave(secure)
    refused(refusals, reason)
    assert secure.echo(b"others are served") == b"others are served"


def test_a_client_that_sends_nothing_is_refused_before_tls(
    secure: Served, refusals: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_port, "GREETING_SECONDS", 0.2)
    with secure.connect() as client:
        assert closed_by_peer(client)
    refused(refusals, "its TLS handshake took more than 0.2 s")


@pytest.mark.parametrize("sent", [b"", b"PRI", b"POST / HTTP/1.1\r\nHost: x\r\n"])
def test_a_client_that_sends_no_complete_head_is_refused(
    plain: Served, refusals: list[str], monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(control_port, "GREETING_SECONDS", 0.2)
    with plain.connect() as client:
        client.sendall(sent)
        assert closed_by_peer(client)
    refused(refusals, "it sent no request within 0.2 s")


def test_a_client_that_speaks_tls_to_a_port_without_is_refused_at_once(plain: Served, refusals: list[str]) -> None:
    with pytest.raises(OSError), plain.connect() as client:
        ssl.create_default_context().wrap_socket(client, server_hostname="127.0.0.1")
    refused(refusals, "it speaks TLS, which INSECURE=1 switches off")


def test_a_head_without_end_is_refused(plain: Served, refusals: list[str]) -> None:
    with plain.connect() as client:
        client.sendall(b"x" * (control_port.MAX_HEAD_BYTES + 1))
        assert closed_by_peer(client)
    refused(refusals, "its first request has a head of more than 65536 bytes")


def test_a_client_that_stops_to_read_does_not_stop_others(plain: Served) -> None:
    with plain.channel() as channel:
        stalled = plain.connect()
        stalled.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\npart")
        assert channel.unary_unary("/Test/Echo")(b"hello", timeout=10) == b"hello"
        stalled.close()


def test_connections_beyond_the_limit_wait_for_one_that_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_port, "MAX_CONNECTIONS", 2)
    served = Served(tmp_path, False)
    try:
        first, second = served.connect(), served.connect()
        answers: list[str] = []
        waiting = threading.Thread(target=lambda: answers.append(served.post(b"x")))
        waiting.start()
        waiting.join(0.5)
        assert answers == []
        first.close()
        waiting.join(10)
        assert answers == ["http 1"]
        second.close()
    finally:
        served.close()


def test_connections_that_ended_are_forgotten(plain: Served) -> None:
    for _ in range(5):
        plain.post(b"x")
        plain.echo(b"x")
    assert poll_until(lambda: not plain.port._connections, 10, 0.02)


def test_close_ends_all_connections_and_frees_the_address(served: Served) -> None:
    with served.connect() as silent:
        assert served.echo(b"x") == b"x"
        start = time.monotonic()
        served.port.close()
        assert time.monotonic() - start < 2
        assert closed_by_peer(silent)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(served.host)
    served.port.close()


def test_an_address_that_is_taken_is_an_error(plain: Served) -> None:
    with pytest.raises(OSError, match="Address already in use"):
        ControlPort(plain.port.address, "127.0.0.1:1", length)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        (("127.0.0.1", 5), "ipv4:127.0.0.1:5"),
        (("::1", 5, 0, 0), "ipv6:[::1]:5"),
        (("::ffff:10.0.0.1", 5, 0, 0), "ipv6:[::ffff:10.0.0.1]:5"),
    ],
)
def test_a_peer_is_named_as_grpc_names_it(address: Any, name: str) -> None:
    assert control_port.peer_name(address) == name


def test_all_addresses_of_both_kinds_are_served() -> None:
    port = ControlPort("[::]:0", "127.0.0.1:1", length)
    try:
        number = int(port.address.rpartition(":")[2])
        assert httpx.get(f"http://127.0.0.1:{number}/", timeout=10).text == "http 0"
        assert httpx.get(f"http://[::1]:{number}/", timeout=10).text == "http 0"
    finally:
        port.close()


def test_an_idle_port_uses_no_cpu(plain: Served) -> None:
    plain.post(b"x")
    before = time.process_time()
    time.sleep(1)
    assert time.process_time() - before < 0.05
