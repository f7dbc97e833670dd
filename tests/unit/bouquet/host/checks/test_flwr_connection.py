"""The connection of `flwr`, compared with the fleet: what differs is named with the fix."""

from pathlib import Path

import pytest

from bouquet.errors import FleetError, SettingError
from bouquet.host.checks.flwr_connection import check_connection, connection_problem, foreign_connection
from bouquet.host.connection import write_connection
from bouquet.host.endpoint import Endpoint

ADDRESS = "127.0.0.1:9093"
SECURE, INSECURE = Endpoint(ADDRESS, b"CA"), Endpoint(ADDRESS, None)


def write(folder: Path, table: str) -> None:
    (folder / "config.toml").write_text(f"[superlink.local-deployment]\n{table}\n")


def test_the_connection_that_the_fleet_wrote_is_right_with_tls_and_without(tmp_path: Path) -> None:
    write_connection(ADDRESS, tmp_path, b"CA")
    assert check_connection(tmp_path, SECURE) == "`local-deployment` is 127.0.0.1:9093, with this fleet's CA"
    write_connection(ADDRESS, tmp_path)
    assert check_connection(tmp_path, INSECURE) == "`local-deployment` is 127.0.0.1:9093, without TLS"


def test_another_name_of_this_machine_is_no_difference(tmp_path: Path) -> None:
    write(tmp_path, "address = 'localhost:9093'\ninsecure = true")
    assert connection_problem(tmp_path, INSECURE) == ""


@pytest.mark.parametrize(
    ("table", "endpoint", "difference"),
    [
        ("address = '127.0.0.1:9093'\ninsecure = true", SECURE, "it is without TLS, this fleet has TLS"),
        ("address = '127.0.0.1:9093'", SECURE, "it names no CA certificate"),
        ("address = '127.0.0.1:9093'\nroot-certificates = 'no.crt'", SECURE, "cannot be read (No such file"),
        ("address = '127.0.0.1:9093'\nroot-certificates = 'other.crt'", SECURE, "other.crt is another fleet's"),
        (
            "address = '127.0.0.1:9093'\nroot-certificates = 'other.crt'",
            INSECURE,
            "it expects TLS, this fleet has none",
        ),
        ("address = 'far:1'\ninsecure = true", INSECURE, "its address is far:1, this fleet has 127.0.0.1:9093"),
    ],
)
def test_what_differs_is_named_with_the_command_that_writes_the_connection(
    table: str, endpoint: Endpoint, difference: str, tmp_path: Path
) -> None:
    (tmp_path / "other.crt").write_bytes(b"another CA")
    write(tmp_path, table)
    assert difference in connection_problem(tmp_path, endpoint)
    with pytest.raises(FleetError, match=r"bouquet connection") as failed:
        check_connection(tmp_path, endpoint)
    assert difference in str(failed.value)


def test_a_missing_connection_is_a_problem_but_none_of_another_fleet(tmp_path: Path) -> None:
    assert "no connection `local-deployment`" in connection_problem(tmp_path, SECURE)
    with pytest.raises(LookupError):
        foreign_connection(tmp_path, SECURE)
    (tmp_path / "config.toml").write_text("superlink = 1\n")
    assert "no connection `local-deployment`" in connection_problem(tmp_path, SECURE)


def test_a_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[superlink\n")
    assert "is not TOML" in connection_problem(tmp_path, SECURE)
    with pytest.raises(SettingError):
        foreign_connection(tmp_path, SECURE)
