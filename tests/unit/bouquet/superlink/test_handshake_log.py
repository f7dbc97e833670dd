"""What the SuperLink's log says about a client that fails at TLS, with gRPC's own server and clients."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from bouquet.contract.tls_files import CA, SERVER, SERVER_KEY
from bouquet.oneshot.certificates import ensure
from bouquet.polling import poll_until
from bouquet.settings.oneshot import CertificateSettings
from bouquet.superlink.handshake_log import LogFilter

SERVE = """
import os, sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from bouquet.superlink import handshake_log
handshake_log.start()
import grpc
folder = Path(sys.argv[1])
server = grpc.server(ThreadPoolExecutor(4))
port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(
    (((folder / "server.key").read_bytes(), (folder / "server.pem").read_bytes()),)))
server.start()
os.write(2, b"what the SuperLink itself says\\n")
print(port, flush=True)
sys.stdin.read()
os.write(2, b"last words\\n")
os._exit(1)
"""


def certificates(folder: Path) -> Path:
    folders = {f"BOUQUET_{kind.upper()}_DIR": str(folder / kind) for kind in ("authority", "server", "identity")}
    ensure(CertificateSettings.read(folders))
    assert (folder / "server" / SERVER).exists() and (folder / "server" / SERVER_KEY).exists()
    return folder / "server"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, "subprocess.Popen[str]", Path]]:
    """A gRPC server with TLS; its address, process and log."""
    log = tmp_path / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-P", "-c", SERVE, str(certificates(tmp_path / "ours"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
        )
    assert server.stdout is not None
    try:
        yield f"127.0.0.1:{int(server.stdout.readline())}", server, log
    finally:
        server.kill()
        server.wait()


def call(channel: grpc.Channel) -> grpc.StatusCode:
    with channel, pytest.raises(grpc.RpcError) as failed:
        channel.unary_unary("/service/method")(b"", timeout=20)
    code = failed.value.code()
    assert isinstance(code, grpc.StatusCode)
    return code


def test_a_client_that_fails_at_tls_is_named_with_the_reason_and_nothing_else_is_lost(
    served: tuple[str, "subprocess.Popen[str]", Path], tmp_path: Path
) -> None:
    address, server, log = served
    theirs = (certificates(tmp_path / "theirs") / CA).read_bytes()
    ours = (tmp_path / "ours" / "server" / CA).read_bytes()
    assert call(grpc.insecure_channel(address)) is grpc.StatusCode.UNAVAILABLE
    assert call(grpc.secure_channel(address, grpc.ssl_channel_credentials(theirs))) is grpc.StatusCode.UNAVAILABLE
    assert call(grpc.secure_channel(address, grpc.ssl_channel_credentials(ours))) is grpc.StatusCode.UNIMPLEMENTED
    assert poll_until(lambda: "it left" in log.read_text(), 30, 0.05)  # the server may notice after the client
    server.communicate("", timeout=30)
    assert poll_until(lambda: "last words" in log.read_text(), 30, 0.05)
    first, *refusals, last = log.read_text().splitlines()
    assert (first, last) == ("what the SuperLink itself says", "last words")
    kinds = [re.sub(r"127\.0\.0\.1:\d+", "PEER", line) for line in refusals]
    assert set(kinds) == {
        "bouquet: refused ipv4:PEER: no TLS: it spoke plain text, or another protocol",
        "bouquet: refused ipv4:PEER: it left during the TLS handshake: it probably does not trust this SuperLink's "
        "certificate",
    }


def test_warnings_of_grpc_and_whole_tracebacks_pass() -> None:
    log_filter = LogFilter()
    for line in (
        b"W1125 18:50:36.968929   27507 server.cc:102] out of descriptors\n",
        b"Traceback (most recent call last):\n",
        b"\n",
        b"  src/core/ is no reason to drop a line by itself\n",
    ):
        assert log_filter(line) == line


def test_the_debug_log_is_dropped_with_the_lines_that_belong_to_it() -> None:
    log_filter = LogFilter()
    for line in (
        b"I1125 18:50:46.634572   27723 handshaker.cc:155] CallNextHandshakerLocked: error=OK shutdown=false index=0\n",
        b"=== Source Location Trace: === \n",
        b"src/core/util/status_helper.cc:68\n",
        b"\n",
    ):
        assert log_filter(line) == b""
    assert log_filter(b"\x1b[92mINFO \x1b[0m:      hello\n") != b""
