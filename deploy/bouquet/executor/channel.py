"""Messages between executor, zygote and workers: one JSON object per packet, a file descriptor with it if need be."""

import json
import socket
from contextlib import suppress
from typing import Any

_LARGEST = 1 << 20


class Channel:
    """One end of a connection between two processes of this machine."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    @classmethod
    def pair(cls) -> tuple["Channel", "Channel"]:
        """Both ends of a new connection."""
        ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in ends:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LARGEST)
        return cls(ends[0]), cls(ends[1])

    @classmethod
    def of(cls, descriptor: int) -> "Channel":
        """An end that this process was given."""
        return cls(socket.socket(fileno=descriptor))

    def fileno(self) -> int:
        """The file descriptor, for `selectors` and to hand on."""
        return self._socket.fileno()

    def send(self, message: dict[str, Any], descriptor: int | None = None) -> None:
        """Send a message. Raises `OSError` if the other end has gone."""
        socket.send_fds(
            self._socket,
            [json.dumps(message).encode()],
            [] if descriptor is None else [descriptor],
            socket.MSG_NOSIGNAL,
        )

    def receive(self) -> tuple[dict[str, Any] | None, int | None]:
        """Wait for a message and the file descriptor sent along; (None, None) when the other end has gone."""
        try:
            packet, descriptors, _, _ = socket.recv_fds(self._socket, _LARGEST, 1)
        except ConnectionResetError:
            return None, None
        return (json.loads(packet) if packet else None), (descriptors[0] if descriptors else None)

    def waiting(self) -> list[dict[str, Any]]:
        """Messages that have come already."""
        messages = []
        self._socket.setblocking(False)
        try:
            while (message := self.receive()[0]) is not None:
                messages.append(message)
        except BlockingIOError:
            pass
        finally:
            self._socket.setblocking(True)
        return messages

    def shut(self) -> None:
        """Tell the other end that nothing more comes, and go on listening to it."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close this end."""
        self._socket.close()
