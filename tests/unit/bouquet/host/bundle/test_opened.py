"""What `bouquet run BUNDLE` reads, and what it refuses."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from bouquet.errors import HostError, SettingError
from bouquet.host.bundle import contents, create
from bouquet.host.bundle.opened import open_bundle
from tests.unit.bouquet.host.bundle.conftest import DESCRIPTION, FakeDocker, WriteBundle


def fab() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as files:
        files.writestr("pyproject.toml", "[project]\n")
    return buffer.getvalue()


def test_a_bundle_gives_its_app_and_loads_its_images_once(docker: FakeDocker, write_bundle: WriteBundle) -> None:
    with open_bundle(write_bundle(fab=fab())) as bundle:
        assert bundle.description == DESCRIPTION
        bundle.check_fits()
        with bundle.app() as app:
            assert (app / "pyproject.toml").read_text() == "[project]\n"
        assert not app.exists()
        assert bundle.load_images() == "images: bundle-0123456789ab loaded"
        loaded = (docker.folder / "loaded").read_bytes()
        assert bundle.load_images() == "images: bundle-0123456789ab found"
    assert loaded.startswith(b"\x1f\x8b")


def test_the_cache_is_unpacked_once_and_readable_for_all(tmp_path: Path, write_bundle: WriteBundle) -> None:
    cache = tmp_path / "cache"
    (cache / "datasets").mkdir(parents=True)
    (cache / "datasets" / "data").write_text("data")
    (cache / "datasets" / "link").symlink_to("data")
    (cache / "datasets" / "data").chmod(0o600)
    with open_bundle(write_bundle(cache)) as bundle:
        first = Path(bundle.settings(tmp_path / "home")["HF_CACHE"])
        assert (first / "datasets" / "link").read_text() == "data"
        assert (first / "datasets" / "data").stat().st_mode & 0o777 == 0o644
        (first / "datasets" / "mine").touch()
        assert bundle.settings(tmp_path / "home")["HF_CACHE"] == str(first)
        assert (first / "datasets" / "mine").exists()


def test_settings_of_the_bundle_are_those_of_the_app(
    tmp_path: Path, write_bundle: WriteBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUPERNODES", "4")
    monkeypatch.setenv("NODE_CONFIG", 'site="$north"')
    with open_bundle(write_bundle()) as bundle:
        assert bundle.settings(tmp_path / "home") == {
            "HF_HUB_OFFLINE": "1",
            "SUPERNODES": "4",
            "NODE_CONFIG": 'site="$north"',
            "GPUS": "none",
        }
    assert not (tmp_path / "home").exists()


def damaged(path: Path) -> None:
    with tarfile.open(path) as tar:
        offset = tar.getmember(f"{create.folder_name(DESCRIPTION)}/{contents.IMAGES}").offset_data
    content = bytearray(path.read_bytes())
    content[offset + 100] ^= 1
    path.write_bytes(content)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20_000])


def cut_before_the_checksums(path: Path) -> None:
    with tarfile.open(path) as tar:
        offset = tar.getmember(f"{create.folder_name(DESCRIPTION)}/{contents.CHECKSUMS}").offset
    path.write_bytes(path.read_bytes()[:offset])


def no_tar(path: Path) -> None:
    path.write_text("notes")


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damaged, "the bundle is damaged, the checksum of images.tar.gz is wrong"),
        (truncated, "incomplete"),
        (cut_before_the_checksums, "the bundle is incomplete, SHA256SUMS is missing"),
    ],
)
def test_a_damaged_or_incomplete_bundle_is_refused_in_one_line(
    write_bundle: WriteBundle, change: object, message: str
) -> None:
    bundle = write_bundle()
    assert callable(change)
    change(bundle)
    with pytest.raises(HostError, match=message) as error, open_bundle(bundle):
        pass
    assert "\n" not in str(error.value)
    assert str(bundle) in str(error.value)


@pytest.mark.parametrize("change", [no_tar, empty])
def test_a_file_that_is_not_a_bundle_is_refused_by_the_name_of_the_setting(
    write_bundle: WriteBundle, change: object
) -> None:
    bundle = write_bundle()
    assert callable(change)
    change(bundle)
    with pytest.raises(SettingError, match="neither a folder with a Flower App nor a bundle") as error:
        open_bundle(bundle).__enter__()
    assert str(error.value).startswith(f"APP={bundle}: ")


def test_a_bundle_of_another_format_is_refused(write_bundle: WriteBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "FORMAT", "2")
    bundle = write_bundle()
    monkeypatch.undo()
    with pytest.raises(HostError, match="format 2, this version reads format 1"), open_bundle(bundle):
        pass


def test_a_bundle_with_another_fleet_is_left_to_its_own_script(
    write_bundle: WriteBundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "docker-compose.yml").write_text("name: another\n")
    with open_bundle(write_bundle()) as bundle:
        monkeypatch.setattr("bouquet.host.bundle.opened.PROJECT", tmp_path)
        with pytest.raises(HostError, match=r"differs from this checkout's; unpack the bundle and use its own script"):
            bundle.check_fits()


def test_images_for_another_platform_are_refused(docker: FakeDocker, write_bundle: WriteBundle) -> None:
    with open_bundle(write_bundle()) as bundle:
        docker.set(platform="linux/arm64")
        with pytest.raises(HostError, match="its images are for linux/amd64, and this Docker runs linux/arm64"):
            bundle.check_fits()
