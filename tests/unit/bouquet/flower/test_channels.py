"""Retries and limits that find a restarted server, or a dead connection, soon."""

import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path

import grpc
from flwr.supercore.retry import make_simple_grpc_retry_invoker

from bouquet.flower.channels import DEAD_CONNECTION_SECONDS, MAX_PAUSE_SECONDS, open_channel, with_quick_retries


def test_the_pauses_between_calls_grow_to_three_seconds_and_no_further() -> None:
    pauses = list(islice(with_quick_retries(make_simple_grpc_retry_invoker()).wait_gen_factory(), 6))
    assert pauses == sorted(pauses)
    assert pauses[-1] == MAX_PAUSE_SECONDS == 3


def test_a_connection_is_dead_when_what_was_sent_is_not_acknowledged_for_ten_seconds() -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with open_channel(f"127.0.0.1:{port}", None) as channel:
        grpc.channel_ready_future(channel).result(10)
        limits = {
            connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            for connection in own_sockets()
            if connection.getpeername()[1] == port
        }
    server.stop(None)
    assert limits == {DEAD_CONNECTION_SECONDS * 1000}


def own_sockets() -> Iterator[socket.socket]:
    """Every connected TCP socket of this process."""
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError), socket.socket(fileno=os.dup(int(descriptor.name))) as connection:
            if connection.family in (socket.AF_INET, socket.AF_INET6) and connection.getpeername():
                yield connection
