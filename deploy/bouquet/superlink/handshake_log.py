"""Who failed at the SuperLink's TLS, and why: a line for each in its log.

gRPC turns such a client away before Python hears of it, and tells only its own log, on stderr, among much else. So
what the SuperLink writes to stderr passes through a process of its own that keeps what is not gRPC's, and makes one
line of a handshake that failed. A process and not a thread: what a dying SuperLink says last must come through.

    W bouquet: refused ipv4:172.20.0.5:51234: no TLS: it spoke plain text, or another protocol
"""

import os
import re
import sys

TRACE = {"GRPC_VERBOSITY": "info", "GRPC_TRACE": "handshaker"}
"""gRPC's words for: say of each handshake how it ended and with whom."""

GRPC_LINE = re.compile(rb"[IWE]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ ([\w.]+):\d+\] (.*)", re.DOTALL)
CHATTER = {b"handshaker.cc", b"channel_trace.h", b"ssl_transport_security.cc", b"log.cc"}
STEP = re.compile(rb"CallNextHandshakerLocked: error=(.*?)(?: shutdown=| *$)", re.DOTALL)
REST = re.compile(rb"=== Source Location Trace|src/core/| shutdown=|\s*$")
"""Lines that belong to the gRPC line before them."""
PEER = re.compile(rb"grpc\.internal\.endpoint_peer_address=([^,}\s]+)")

REASONS = (
    (b"WRONG_VERSION_NUMBER", "no TLS: it spoke plain text, or another protocol"),
    (b"HTTP_REQUEST", "no TLS: it spoke plain text, or another protocol"),
    (b"UNKNOWN_CA", "it does not trust this SuperLink's certificate: it has a CA of its own, or an old one"),
    (b"CERTIFICATE_UNKNOWN", "it does not trust this SuperLink's certificate: it has a CA of its own, or an old one"),
    (b"BAD_CERTIFICATE", "it does not trust this SuperLink's certificate: it has a CA of its own, or an old one"),
    (b"UNSUPPORTED_PROTOCOL", "its TLS is older than 1.2"),
    (b"Socket closed", "it left during the TLS handshake, as who does not trust this SuperLink's certificate does"),
)


class Translator:
    """Turns lines of a SuperLink's stderr into what is worth keeping of them."""

    def __init__(self) -> None:
        self._error: bytes | None = None  # of a handshake whose peer is in the line to come
        self._chatter = False  # the line before was gRPC's

    def __call__(self, line: bytes) -> bytes:
        """Return what to write for a line; nothing for gRPC's chatter."""
        match = GRPC_LINE.match(line)
        if match is None:
            if self._error is not None and (peer := PEER.search(line)):
                return self._refused(peer)
            self._chatter = self._chatter and REST.match(line) is not None
            return b"" if self._chatter else line
        source, text = match.groups()
        if source not in CHATTER:
            self._chatter = line[:1] == b"I"
            return b"" if self._chatter else line
        self._chatter = True
        self._error = None
        step = STEP.match(text)
        if source == b"handshaker.cc" and step and not step[1].startswith(b"OK"):
            self._error = step[1]
            if peer := PEER.search(text):
                return self._refused(peer)
        return b""

    def _refused(self, peer: re.Match[bytes]) -> bytes:
        error, self._error = self._error or b"", None
        why = next((reason for mark, reason in REASONS if mark in error), error.decode(errors="replace").strip())
        return f"bouquet: refused {peer[1].decode(errors='replace')}: {why}\n".encode()


def start() -> None:
    """From now on, and through `exec`, pass this process's stderr through a `Translator`."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.dup2(reading, 0)
        os.close(reading)
        os.close(writing)
        os.execv(sys.executable, [sys.executable, "-I", "-S", __file__])  # noqa: S606  a list, no shell
    os.close(reading)
    os.dup2(writing, 2)
    os.close(writing)
    os.environ.update(TRACE)


def main() -> None:
    """Translate stdin to stderr until whoever writes has ended."""
    translate = Translator()
    with open(0, "rb") as lines:
        for line in lines:
            if kept := translate(line):
                os.write(2, kept)


if __name__ == "__main__":
    main()
