"""The connection writer: adds or updates one table, and leaves the rest of the file as it was."""

from pathlib import Path

import pytest
import tomlkit

from bouquet.errors import FleetError, SettingError
from bouquet.host.connection import read_connection, write_connection


def test_a_new_file_gets_the_connection_and_keeps_flowers_own_default(tmp_path: Path) -> None:
    path = write_connection("127.0.0.1:9093", tmp_path / "flwr")
    written = tomlkit.parse(path.read_text())
    assert written["superlink"]["local-deployment"] == {"address": "127.0.0.1:9093", "insecure": True}
    assert written["superlink"]["default"] == "local"
    assert written["superlink"]["local"] == {"address": ":local:"}


def test_comments_other_connections_and_other_tables_stay_as_they_were(tmp_path: Path) -> None:
    mine = "# mine\n[superlink]\ndefault = 'far'   # kept\n\n"
    before = f'{mine}[superlink.far]\naddress = "far:9093"\n\n[other]\nx = [1, 2]\n'
    (tmp_path / "config.toml").write_text(before)
    write_connection("127.0.0.1:9093", tmp_path)
    after = (tmp_path / "config.toml").read_text()
    for line in before.splitlines():
        assert line in after.splitlines()
    assert tomlkit.parse(after)["superlink"]["local-deployment"]["address"] == "127.0.0.1:9093"


def test_writing_twice_updates_the_connection_and_changes_nothing_else(tmp_path: Path) -> None:
    write_connection("127.0.0.1:1", tmp_path)
    once = write_connection("127.0.0.1:2", tmp_path).read_text()
    assert write_connection("127.0.0.1:2", tmp_path).read_text() == once
    assert "127.0.0.1:1" not in once


def test_a_file_that_is_not_toml_is_left_alone_and_named(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[superlink\n")
    with pytest.raises(SettingError, match="FLWR_HOME=.*config.toml is not TOML"):
        write_connection("127.0.0.1:9093", tmp_path)
    assert (tmp_path / "config.toml").read_text() == "[superlink\n"


def test_a_superlink_that_is_not_a_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("superlink = 1\n")
    with pytest.raises(SettingError, match="config.toml: `superlink` is not a table; fix the file or move it away"):
        write_connection("127.0.0.1:9093", tmp_path)
    assert (tmp_path / "config.toml").read_text() == "superlink = 1\n"


def test_flower_itself_reads_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flwr.cli.flower_config import read_superlink_connection

    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    write_connection("127.0.0.1:9093", tmp_path)
    assert read_superlink_connection("local-deployment").address == "127.0.0.1:9093"


def test_with_a_certificate_the_connection_points_at_a_copy_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flwr.cli.flower_config import read_superlink_connection

    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    write_connection("127.0.0.1:9093", tmp_path)
    write_connection("127.0.0.1:9093", tmp_path, b"certificate")
    connection = read_superlink_connection("local-deployment")
    assert connection.root_certificates is not None
    assert Path(connection.root_certificates).read_bytes() == b"certificate"
    assert connection.insecure is False
    write_connection("127.0.0.1:9093", tmp_path)
    assert read_superlink_connection("local-deployment").insecure is True


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    write_connection("127.0.0.1:9093", tmp_path)
    assert read_connection(tmp_path) == ("127.0.0.1:9093", None)


def test_the_ca_of_a_connection_with_tls_is_found(tmp_path: Path) -> None:
    text = '[superlink.local-deployment]\naddress = "127.0.0.1:9093"\nroot-certificates = "/ca.crt"\n'
    (tmp_path / "config.toml").write_text(text)
    assert read_connection(tmp_path) == ("127.0.0.1:9093", Path("/ca.crt"))


@pytest.mark.parametrize("text", [None, "", "[superlink\n", "superlink = 1\n", "[superlink]\nlocal-deployment = 1\n"])
def test_without_a_connection_the_error_says_how_to_write_it(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "config.toml").write_text(text)
    with pytest.raises(FleetError, match="no connection `local-deployment`; write it: make connection"):
        read_connection(tmp_path)


def test_a_configuration_that_is_a_link_stays_one_and_keeps_its_mode(tmp_path: Path) -> None:
    mine, home = tmp_path / "dotfiles.toml", tmp_path / "flwr"
    mine.write_text("# mine\n")
    mine.chmod(0o600)
    home.mkdir()
    (home / "config.toml").symlink_to(mine)
    write_connection("127.0.0.1:9093", home)
    assert (home / "config.toml").is_symlink()
    assert mine.stat().st_mode & 0o777 == 0o600
    assert "# mine" in mine.read_text()
    assert read_connection(home) == ("127.0.0.1:9093", None)


def test_a_home_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingError, match=r"FLWR_HOME=.*/file: .*Not a directory\)?; give a folder"):
        write_connection("127.0.0.1:9093", tmp_path / "file")
