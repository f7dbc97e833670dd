"""Whether `flwr run . local-deployment` reaches this fleet: the user's `config.toml` against the fleet itself."""

from pathlib import Path
from typing import Any

from bouquet.errors import BouquetError, FleetError
from bouquet.host.connection import CONFIG, NAME, read_config
from bouquet.host.endpoint import Endpoint


def check_connection(flower_home: Path, endpoint: Endpoint) -> str:
    """Check that the connection of `flwr` is that of this fleet; return what it is.

    Args:
        flower_home: Flower's folder, with the connections.
        endpoint: This fleet.

    Raises:
        FleetError: It is missing, or differs. `flwr` itself rewrites it from an app's old `[tool.flwr.federations]`.
    """
    if problem := connection_problem(flower_home, endpoint):
        raise FleetError(problem, "write it again: make connection (bouquet connection)")
    tls = "without TLS" if endpoint.root_certificate is None else "with this fleet's CA"
    return f"`{NAME}` is {endpoint.address}, {tls}"


def connection_problem(flower_home: Path, endpoint: Endpoint) -> str:
    """Return in which way the connection of `flwr` is not that of this fleet; empty if it is."""
    try:
        return foreign_connection(flower_home, endpoint)
    except LookupError:
        return f"{flower_home / CONFIG}: no connection `{NAME}`"
    except (OSError, BouquetError) as error:
        return f"{flower_home / CONFIG}: {error}"


def foreign_connection(flower_home: Path, endpoint: Endpoint) -> str:
    """Return in which way an existing connection is not that of this fleet; empty if it is.

    Raises:
        LookupError: There is no such connection.
        SettingError: The file is not TOML.
        OSError: The file cannot be read.
    """
    document: Any = read_config(flower_home).unwrap()
    try:
        connection = document["superlink"][NAME]
        differences = _differences(connection, flower_home, endpoint)
    except (TypeError, AttributeError):  # not a table
        raise LookupError(NAME) from None
    where = f"{flower_home / CONFIG}: the connection `{NAME}` is not this fleet's"
    return f"{where}: {', '.join(differences)}" if differences else ""


def _differences(connection: dict[str, Any], flower_home: Path, endpoint: Endpoint) -> list[str]:
    differences = []
    address = str(connection.get("address"))
    if address.replace("localhost", "127.0.0.1") != endpoint.address:
        differences.append(f"its address is {address}, this fleet has {endpoint.address} (CONTROL_PORT)")
    insecure, certificate = connection.get("insecure") is True, connection.get("root-certificates")
    if endpoint.root_certificate is None:
        if not insecure:
            differences.append("it expects TLS, this fleet has none")
    elif insecure:
        differences.append("it is without TLS, this fleet has TLS")
    elif not certificate:
        differences.append("it names no CA certificate")
    elif (problem := _certificate_problem(flower_home / str(certificate), endpoint.root_certificate)) is not None:
        differences.append(problem)
    return differences


def _certificate_problem(path: Path, expected: bytes) -> str | None:
    try:
        return None if path.read_bytes() == expected else f"its CA certificate {path} is another fleet's"
    except OSError as error:
        return f"its CA certificate {path} cannot be read ({error.strerror})"
