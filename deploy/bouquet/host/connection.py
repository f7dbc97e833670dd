"""The connection `local-deployment` in `$FLWR_HOME/config.toml`: `flwr run . local-deployment` finds the fleet by it.

Flower's own writer (`flwr.cli.flower_config`) is private and drops comments; tomlkit keeps them.
"""

from pathlib import Path

import tomlkit
from tomlkit.exceptions import TOMLKitError

from bouquet.errors import FleetError, SettingError
from bouquet.files import write_if_changed, write_users_file

NAME = "local-deployment"
CONFIG = "config.toml"
CERTIFICATE = "bouquet-ca.crt"
FILE_HINT = "fix the file or move it away"


def write_connection(address: str, flower_home: Path, root_certificate: bytes | None = None) -> Path:
    """Add or update `[superlink.local-deployment]`; keep everything else in the file.

    Args:
        address: Host and port of the SuperLink's Control API.
        flower_home: Flower's folder (`FLWR_HOME`); created if missing.
        root_certificate: The CA's certificate, which is stored beside the file; None for a connection without TLS.

    Returns:
        The path of the file.

    Raises:
        SettingError: The file is not TOML, its `superlink` is not a table, or it cannot be written.
    """
    path = flower_home / CONFIG
    document = read_config(flower_home)
    connections = document.setdefault("superlink", tomlkit.table(is_super_table=True))
    if not isinstance(connections, dict):
        raise SettingError("FLWR_HOME", flower_home, f"{CONFIG}: `superlink` is not a table", FILE_HINT)
    if "default" not in connections and not path.exists():
        # What `flwr` itself would write on a new machine.
        connections["default"] = "local"
        connections["local"] = _table(address=":local:")
    try:
        if root_certificate is None:
            connections[NAME] = _table(address=address, insecure=True)
        else:
            certificate = flower_home.resolve() / CERTIFICATE
            write_if_changed(certificate, root_certificate)
            connections[NAME] = _table(address=address, **{"root-certificates": str(certificate)})
        write_users_file(path, tomlkit.dumps(document).encode())
    except OSError as error:
        problem = f"the connection `{NAME}` cannot be written ({error.filename or path}: {error.strerror})"
        raise SettingError("FLWR_HOME", flower_home, problem, "give a folder that you can write to") from error
    return path


def read_connection(flower_home: Path) -> tuple[str, Path | None]:
    """Return the address of `[superlink.local-deployment]` and its CA's certificate, None for one without TLS.

    Raises:
        FleetError: There is no such connection.
    """
    path = flower_home / CONFIG
    try:
        connection = tomlkit.parse(path.read_text(encoding="utf-8")).unwrap()["superlink"][NAME]
        certificate = connection.get("root-certificates")
        return str(connection["address"]), Path(certificate) if certificate else None
    except (OSError, LookupError, TypeError, AttributeError, TOMLKitError) as error:
        raise FleetError(f"{path}: no connection `{NAME}`", "write it: make connection") from error


def read_config(flower_home: Path) -> tomlkit.TOMLDocument:
    """Return Flower's configuration; empty where there is no file.

    Raises:
        SettingError: The file is not TOML, or cannot be read.
    """
    path = flower_home / CONFIG
    try:
        return tomlkit.parse(path.read_text(encoding="utf-8")) if path.exists() else tomlkit.document()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError("FLWR_HOME", flower_home, f"{CONFIG} cannot be read ({error})", FILE_HINT) from error
    except TOMLKitError as error:
        raise SettingError("FLWR_HOME", flower_home, f"{CONFIG} is not TOML ({error})", FILE_HINT) from error


def _table(**values: str | bool) -> tomlkit.items.Table:
    table = tomlkit.table()
    table.update(values)
    return table
