"""The way from a machine's loopback to the Control API's socket."""

import asyncio
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from bouquet.errors import SettingError
from bouquet.flower.control_port import ControlPort
from bouquet.polling import poll_until
from bouquet.settings.control_proxy_settings import ControlProxySettings
from bouquet.superlink.control_proxy import serve


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def no_http(scope: object, receive: object, send: object) -> None:
    """An application that nobody calls."""


def test_a_call_on_loopback_reaches_the_socket(tmp_path: Path) -> None:
    echo = grpc.unary_unary_rpc_method_handler(lambda request, context: request)
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Test", {"Echo": echo}),))
    backend = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    path, port = tmp_path / "control.sock", free_port()
    control = ControlPort(f"unix:{path}", backend, no_http)
    environment = os.environ | {"CONTROL_PROXY_ADDRESS": f"127.0.0.1:{port}", "CONTROL_SOCKET": str(path)}
    proxy = subprocess.Popen([sys.executable, "-P", "-m", "bouquet.superlink.control_proxy"], env=environment)
    try:
        assert path.stat().st_mode & 0o777 == 0o600
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            answer = channel.unary_unary("/Test/Echo")(b"hello" * 100_000, timeout=30, wait_for_ready=True)
        assert answer == b"hello" * 100_000
    finally:
        proxy.kill()
        proxy.wait()
        control.close()
        server.stop(None)


def test_a_superlink_that_is_away_ends_the_connection_and_not_the_proxy(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = ControlProxySettings("127.0.0.1", free_port(), str(tmp_path / "missing.sock"))

    async def connect_twice() -> list[bytes]:
        serving = asyncio.ensure_future(serve(settings))
        await asyncio.to_thread(poll_until, lambda: answers(settings.port), 10, 0.05)
        try:
            return [await asyncio.wait_for(read_all(settings.port), 10) for _ in range(2)]
        finally:
            serving.cancel()

    async def read_all(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        content = await reader.read()
        writer.close()
        return content

    assert asyncio.run(connect_twice()) == [b"", b""]
    assert f"the SuperLink does not answer at {tmp_path / 'missing.sock'}: No such file" in capfd.readouterr().err


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("0.0.0.0:9093", "other machines could reach it, and run code on every node"),
        ("localhost:9093", "not an IP address and a port"),
        ("127.0.0.1", "not an IP address and a port"),
        ("127.0.0.1:99999", "not a port"),
    ],
)
def test_only_a_loopback_address_is_accepted(address: str, problem: str) -> None:
    with pytest.raises(SettingError, match=f"CONTROL_PROXY_ADDRESS={address}: {problem}; give a loopback address"):
        ControlProxySettings.read({"CONTROL_PROXY_ADDRESS": address})


def test_the_default_is_where_flwr_looks() -> None:
    settings = ControlProxySettings.read({})
    assert (settings.host, settings.port) == ("127.0.0.1", 9093)
