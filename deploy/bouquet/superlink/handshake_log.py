"""Logs each client that fails the SuperLink's TLS handshake, and why.

gRPC rejects such a client before Python code runs, and reports it only in its debug log on stderr, among much else. So
the SuperLink's stderr passes through a filter process, which drops gRPC's debug log and writes one line for each failed
handshake. It is a process and not a thread, because the last lines of a SuperLink that dies must get through.
`flower.control_port` ends TLS for the Control API, and logs its refusals itself, with the reasons of this module.

    bouquet: refused ipv4:172.20.0.5:51234: no TLS: it spoke plain text, or another protocol
"""

import os
import re
import sys

TRACE = {"GRPC_VERBOSITY": "info", "GRPC_TRACE": "handshaker"}
"""Environment variables that make gRPC log the peer and the result of each handshake."""

GRPC_LINE = re.compile(rb"[IWE]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ ([\w.]+):\d+\] (.*)", re.DOTALL)
DEBUG_SOURCES = {b"handshaker.cc", b"channel_trace.h", b"ssl_transport_security.cc", b"log.cc"}
"""Files of gRPC that write the debug log."""
STEP = re.compile(rb"CallNextHandshakerLocked: error=(.*?)(?: shutdown=| *$)", re.DOTALL)
CONTINUATION = re.compile(rb"=== Source Location Trace|src/core/| shutdown=|\s*$")
"""A line that belongs to the gRPC line before it."""
PEER = re.compile(rb"grpc\.internal\.endpoint_peer_address=([^,}\s]+)")

NO_TLS = "no TLS: it spoke plain text, or another protocol"
LEFT = "it left during the TLS handshake: it probably does not trust this SuperLink's certificate"
UNTRUSTED = "it does not trust this SuperLink's certificate: it has another CA, or an old one"
REASONS = (
    ("WRONG_VERSION_NUMBER", NO_TLS),
    ("HTTP_REQUEST", NO_TLS),
    ("UNKNOWN_CA", UNTRUSTED),
    ("CERTIFICATE_UNKNOWN", UNTRUSTED),
    ("BAD_CERTIFICATE", UNTRUSTED),
    ("UNSUPPORTED_PROTOCOL", "its TLS is older than 1.2"),
    ("Socket closed", LEFT),
)
"""What the error of gRPC or of Python's `ssl` contains, and what that means."""


def refusal_reason(error: str) -> str:
    """Return what the error of a failed TLS handshake means; the error itself if that is not known."""
    return next((reason for mark, reason in REASONS if mark in error), error)


class LogFilter:
    """Filters the lines of a SuperLink's stderr."""

    def __init__(self) -> None:
        self._error: bytes | None = None  # of a failed handshake whose peer is in a later line
        self._dropping = False  # whether the previous line was dropped

    def __call__(self, line: bytes) -> bytes:
        """Return what to write for a line; nothing for a line of gRPC's debug log."""
        match = GRPC_LINE.match(line)
        if match is None:
            if self._error is not None and (peer := PEER.search(line)):
                return self._refused(peer)
            self._dropping = self._dropping and CONTINUATION.match(line) is not None
            return b"" if self._dropping else line
        source, text = match.groups()
        if source not in DEBUG_SOURCES:
            self._dropping = line[:1] == b"I"
            return b"" if self._dropping else line
        self._dropping = True
        self._error = None
        step = STEP.match(text)
        if source == b"handshaker.cc" and step and not step[1].startswith(b"OK"):
            self._error = step[1]
            if peer := PEER.search(text):
                return self._refused(peer)
        return b""

    def _refused(self, peer: re.Match[bytes]) -> bytes:
        error, self._error = self._error or b"", None
        reason = refusal_reason(error.decode(errors="replace").strip())
        return f"bouquet: refused {peer[1].decode(errors='replace')}: {reason}\n".encode()


def start() -> None:
    """Pass this process's stderr through a `LogFilter` from now on. It stays so after `exec`."""
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
    """Filter stdin to stderr until all processes that write have ended."""
    log_filter = LogFilter()
    with open(0, "rb") as lines:
        for line in lines:
            if kept := log_filter(line):
                os.write(2, kept)


if __name__ == "__main__":
    main()
