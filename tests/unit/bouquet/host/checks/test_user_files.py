"""The files that settings name."""

from pathlib import Path

import pytest

from bouquet.errors import SettingError
from bouquet.host.checks.user_files import check_ca_bundle, check_dataset, user_files
from bouquet.host.readable import Reader
from bouquet.settings.host import HostSettings

CONTAINERS = Reader(in_container=True)


def private(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o755)
    path.touch()
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("name", ["plain_text/train-0.parquet", "numbers.csv"])
def test_an_unreadable_dataset_is_refused_with_parquet_files_or_without(tmp_path: Path, name: str) -> None:
    tmp_path.chmod(0o755)
    private(tmp_path / name)
    with pytest.raises(SettingError, match=f"^DATASET={tmp_path}: .*{name}"):
        check_dataset(tmp_path, CONTAINERS)


def test_the_key_of_the_users_certificate_and_the_token_are_checked(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    key, token = private(tmp_path / "server.key"), private(tmp_path / "token")
    settings = HostSettings.read({"CERTIFICATES": str(tmp_path), "HF_TOKEN_FILE": str(token)})
    with pytest.raises(SettingError, match="^CERTIFICATES=.*server.key"):
        user_files(settings, CONTAINERS)
    key.chmod(0o644)
    with pytest.raises(SettingError, match="^HF_TOKEN_FILE=.*token"):
        user_files(settings, CONTAINERS)
    token.chmod(0o644)
    assert user_files(settings, CONTAINERS).endswith("can read CERTIFICATES and HF_TOKEN_FILE")


def test_without_such_settings_there_is_nothing_to_read() -> None:
    assert user_files(HostSettings.read({}), CONTAINERS).startswith("none is set: CERTIFICATES")


def test_the_data_of_a_brought_cache_must_be_readable_and_its_token_need_not_be(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    settings = HostSettings.read({"HF_CACHE": str(tmp_path)})
    with pytest.raises(SettingError, match="^HF_CACHE=.*has neither a folder datasets nor a folder hub"):
        user_files(settings, CONTAINERS)
    private(tmp_path / "token")
    data = private(tmp_path / "datasets" / "data.arrow")
    with pytest.raises(SettingError, match=r"^HF_CACHE=.*cannot read .*/data.arrow \(mode 0600\)"):
        user_files(settings, CONTAINERS)
    data.chmod(0o644)
    assert user_files(settings, CONTAINERS).endswith("can read HF_CACHE")


def test_a_brought_cache_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="no: there is no such folder; .*bouquet dataset NAME"):
        user_files(HostSettings.read({"HF_CACHE": str(tmp_path / "no")}), CONTAINERS)


def test_the_node_config_must_be_readable(tmp_path: Path) -> None:
    file = private(tmp_path / "nodes.toml")
    settings = HostSettings.read({"NODE_CONFIG_FILE": str(file)})
    with pytest.raises(SettingError, match="^NODE_CONFIG_FILE=.*cannot read"):
        user_files(settings, CONTAINERS)
    file.chmod(0o644)
    assert user_files(settings, CONTAINERS).endswith("can read NODE_CONFIG_FILE")


def test_a_missing_file_with_cas_is_refused_before_the_build(tmp_path: Path) -> None:
    check_ca_bundle({})
    check_ca_bundle({"SSL_CERT_FILE": str(private(tmp_path / "ca.pem"))})
    with pytest.raises(SettingError, match="^SSL_CERT_FILE=/nowhere.pem: there is no such file; "):
        check_ca_bundle({"SSL_CERT_FILE": "/nowhere.pem"})
