"""Messages between executor, zygote and workers: one JSON object per packet, with at most one file descriptor."""

import json
import socket
import sys
from array import array
from contextlib import suppress
from typing import Any

_MAX_PACKET_BYTES = 1 << 20
_DESCRIPTOR_BYTES = array("i").itemsize


class Channel:
    """One end of a connection between two processes of this machine."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    @classmethod
    def pair(cls) -> tuple["Channel", "Channel"]:
        """Return both ends of a new connection."""
        ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in ends:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MAX_PACKET_BYTES)
        return cls(ends[0]), cls(ends[1])

    @classmethod
    def from_descriptor(cls, descriptor: int) -> "Channel":
        """Return the end whose file descriptor this process has inherited or received."""
        return cls(socket.socket(fileno=descriptor))

    def fileno(self) -> int:
        """Return the file descriptor, for `selectors` and to pass it on."""
        return self._socket.fileno()

    def send(self, message: dict[str, Any], descriptor: int | None = None, *, wait: bool = True) -> None:
        """Send a message.

        Args:
            message: Anything that JSON can represent.
            descriptor: A file descriptor to send along. The sender may close its own afterwards.
            wait: Whether to wait while the buffer is full, which happens when the other end does not read.

        Raises:
            OSError: The other end is closed. With `wait=False` also `BlockingIOError`: the buffer is full.
        """
        rights = [] if descriptor is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [descriptor]))]
        flags = socket.MSG_NOSIGNAL | (0 if wait else socket.MSG_DONTWAIT)
        self._socket.sendmsg([json.dumps(message).encode()], rights, flags)

    def receive(self) -> tuple[dict[str, Any] | None, int | None]:
        """Wait for a message; return it with the file descriptor sent along.

        Returns:
            (None, None) when the other end is closed, or sends no more.
        """
        return self._receive(0)

    def drain(self) -> list[dict[str, Any]]:
        """Return the messages that have arrived already, without waiting."""
        messages = []
        with suppress(BlockingIOError):
            while (message := self._receive(socket.MSG_DONTWAIT)[0]) is not None:
                messages.append(message)
        return messages

    def end_sending(self) -> None:
        """Tell the other end that no message follows. Receiving is still possible."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close this end."""
        self._socket.close()

    def _receive(self, flags: int) -> tuple[dict[str, Any] | None, int | None]:
        # Not socket.recv_fds(): that of Python 3.11 ignores its flags, and so does socket.send_fds().
        try:
            packet, rights, _, _ = self._socket.recvmsg(_MAX_PACKET_BYTES, socket.CMSG_LEN(_DESCRIPTOR_BYTES), flags)
        except ConnectionResetError:
            return None, None
        message = json.loads(packet) if packet else None
        return message, int.from_bytes(rights[0][2][:_DESCRIPTOR_BYTES], sys.byteorder) if rights else None
