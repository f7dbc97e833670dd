"""The connection by which `flwr run . local-deployment` finds the fleet, in `$FLWR_HOME/config.toml`.

Flower's own writer (`flwr.cli.flower_config`) is private and drops comments; tomlkit keeps the file as it was.
"""

from pathlib import Path

import tomlkit
from tomlkit.exceptions import TOMLKitError

from bouquet.errors import FleetError, SettingError
from bouquet.files import write_if_changed

NAME = "local-deployment"
CERTIFICATE = "bouquet-ca.crt"


def write_connection(address: str, flower_home: Path, root_certificate: bytes | None = None) -> Path:
    """Add or update `[superlink.local-deployment]`; leave all else in the file as it was.

    Parameters
    ----------
    address : str
        Host and port of the SuperLink's Control API.
    flower_home : Path
        Flower's home (`FLWR_HOME`), made where missing.
    root_certificate : bytes | None
        The CA's certificate, kept beside the file; None for a connection without TLS.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    SettingError
        The file is no TOML, or has something else where the connections should be.
    """
    path = flower_home / "config.toml"
    document = read_config(flower_home)
    connections = document.setdefault("superlink", tomlkit.table(is_super_table=True))
    if not isinstance(connections, dict):
        raise SettingError(
            "FLWR_HOME",
            flower_home,
            f"{path.name} has a `superlink` that is no table",
            "mend the file or move it away",
        )
    if "default" not in connections and not path.exists():
        # What `flwr` itself would write on a new machine.
        connections["default"] = "local"
        connections["local"] = _table(address=":local:")
    flower_home.mkdir(parents=True, exist_ok=True)
    if root_certificate is None:
        connections[NAME] = _table(address=address, insecure=True)
    else:
        certificate = flower_home.resolve() / CERTIFICATE
        write_if_changed(certificate, root_certificate)
        connections[NAME] = _table(address=address, **{"root-certificates": str(certificate)})
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(tomlkit.dumps(document), encoding="utf-8")
    fresh.replace(path)
    return path


def read_connection(flower_home: Path) -> tuple[str, Path | None]:
    """Return the address of `[superlink.local-deployment]`, and its CA's certificate; None: it is without TLS.

    Raises
    ------
    FleetError
        There is no such connection.
    """
    path = flower_home / "config.toml"
    try:
        found = tomlkit.parse(path.read_text(encoding="utf-8")).unwrap()["superlink"][NAME]
        certificates = found.get("root-certificates")
        return str(found["address"]), Path(certificates) if certificates else None
    except (OSError, LookupError, TypeError, AttributeError, TOMLKitError) as error:
        raise FleetError(f"{path}: no connection `{NAME}`", "write it: make connection") from error


def read_config(flower_home: Path) -> tomlkit.TOMLDocument:
    """Return what is in Flower's configuration; raise `SettingError` where it is no TOML."""
    path = flower_home / "config.toml"
    try:
        return tomlkit.parse(path.read_text(encoding="utf-8")) if path.exists() else tomlkit.document()
    except TOMLKitError as error:
        raise SettingError(
            "FLWR_HOME", flower_home, f"{path.name} is no TOML ({error})", "mend the file or move it away"
        ) from error


def _table(**values: str | bool) -> tomlkit.items.Table:
    table = tomlkit.table()
    table.update(values)
    return table
