"""A package mirror or a private CA that is set up for pip or for uv serves both."""

from pathlib import Path

import pytest

from bouquet.host.bootstrap import package_index
from bouquet.host.bootstrap.package_index import downloads

MIRROR = "https://mirror.example/simple"


@pytest.fixture(autouse=True)
def no_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """This machine's own settings for pip do not matter."""
    monkeypatch.setattr(package_index, "_pip_settings", lambda environ: {})


@pytest.mark.parametrize("name", ["UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"])
def test_a_mirror_that_is_set_for_one_tool_is_used_by_both(name: str, tmp_path: Path) -> None:
    found = downloads({name: MIRROR, "XDG_CONFIG_HOME": str(tmp_path)})
    assert found["PIP_INDEX_URL"] == MIRROR
    assert MIRROR in (found.get("UV_DEFAULT_INDEX"), found.get("UV_INDEX_URL"))


def test_each_tool_keeps_its_own_setting(tmp_path: Path) -> None:
    given = {"UV_DEFAULT_INDEX": MIRROR, "PIP_INDEX_URL": "https://other.example", "XDG_CONFIG_HOME": str(tmp_path)}
    assert downloads(given) == given


@pytest.mark.parametrize(
    "content",
    [f'index-url = "{MIRROR}"', f'[[index]]\nurl = "{MIRROR}"\ndefault = true', f'[pip]\nindex-url="{MIRROR}"'],
)
def test_the_mirror_in_uv_toml_is_used_by_pip_too(content: str, tmp_path: Path) -> None:
    (tmp_path / "uv").mkdir()
    (tmp_path / "uv" / "uv.toml").write_text(content)
    assert downloads({"XDG_CONFIG_HOME": str(tmp_path)})["PIP_INDEX_URL"] == MIRROR


def test_the_mirror_and_the_ca_in_pips_file_are_used_by_uv_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    (tmp_path / "pip.conf").write_text(f"[global]\nindex-url = {MIRROR}\ncert = /ca é.crt\n")
    found = downloads({"PIP_CONFIG_FILE": str(tmp_path / "pip.conf"), "XDG_CONFIG_HOME": str(tmp_path)})
    assert found["UV_DEFAULT_INDEX"] == MIRROR
    assert found["SSL_CERT_FILE"] == "/ca é.crt"


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_private_ca_that_is_set_for_one_tool_is_trusted_by_both(name: str, tmp_path: Path) -> None:
    found = downloads({name: "/my ca.crt", "XDG_CONFIG_HOME": str(tmp_path)})
    assert (found["SSL_CERT_FILE"], found["PIP_CERT"]) == ("/my ca.crt", "/my ca.crt")


def test_settings_that_contradict_the_lock_or_install_elsewhere_are_left_out(tmp_path: Path) -> None:
    given = {"PIP_USER": "1", "UV_LOCKED": "1", "HOME": "/home/me", "XDG_CONFIG_HOME": str(tmp_path)}
    assert downloads(given) == {"HOME": "/home/me", "XDG_CONFIG_HOME": str(tmp_path)}
