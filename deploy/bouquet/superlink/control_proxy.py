"""Passes connections on the machine's loopback on to the Control API, which listens on a Unix socket.

`python -m bouquet.superlink.control_proxy`

Swarm cannot publish a port on a manager's loopback only. So this process runs in the network of the manager itself, and
the SuperLink's Control API is a socket file in a volume that both containers share. TLS passes through unchanged.
"""

import asyncio
import sys
from contextlib import suppress

from bouquet.errors import report_errors
from bouquet.settings.control_proxy_settings import ControlProxySettings

CHUNK_BYTES = 64 * 1024


async def serve(settings: ControlProxySettings) -> None:
    """Serve until the process ends.

    Raises:
        OSError: The address is in use.
    """

    async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream = await asyncio.open_unix_connection(settings.socket)
        except OSError as error:
            sys.stderr.write(f"bouquet: the SuperLink does not answer at {settings.socket}: {error.strerror}\n")
            writer.close()
            return
        await asyncio.gather(_pass_on(reader, upstream[1]), _pass_on(upstream[0], writer))

    server = await asyncio.start_server(attend, settings.host, settings.port)
    sys.stderr.write(f"bouquet: the Control API is at {settings.host}:{settings.port}\n")
    async with server:
        await server.serve_forever()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Write what is read until one side ends, and end the other."""
    with suppress(OSError):
        while chunk := await reader.read(CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
    writer.close()


def main() -> None:
    """Serve with the settings of the environment."""
    settings = ControlProxySettings.read()
    try:
        asyncio.run(serve(settings))
    except OSError as error:
        raise settings.unusable(error) from error


if __name__ == "__main__":
    report_errors(main)
