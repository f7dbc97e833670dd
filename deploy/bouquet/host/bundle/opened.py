"""Reads a bundle without unpacking it: `bouquet run BUNDLE`."""

import hashlib
import io
import shlex
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

from dotenv import dotenv_values

from bouquet.errors import HostError, SettingError
from bouquet.host.app_project import HINT, SETTING
from bouquet.host.bundle import contents, image_archive
from bouquet.host.bundle.contents import Description
from bouquet.host.packages.package_list import PackageList
from bouquet.settings.host import PROJECT

OFFLINE = "HF_HUB_OFFLINE"
DAMAGED_HINT = "copy the file again, or write the bundle again: bouquet bundle"


class Bundle:
    """A bundle whose checksums were right when it was opened.

    Attributes:
        path: The file.
        description: What it is.
    """

    def __init__(self, path: Path, tar: tarfile.TarFile) -> None:
        """Read what the bundle is, and verify it.

        Raises:
            HostError: It is damaged, incomplete or of another version.
        """
        self.path = path
        self._tar = tar
        self._members = {member.name.partition("/")[2]: member for member in tar.getmembers()}
        self._verify()
        try:
            self.description = Description.parse(self._read(contents.DESCRIPTION).decode())
        except ValueError as error:
            raise HostError(f"{path}: {error}", "use the version of Bouquet that wrote the bundle") from error

    def check_fits(self) -> None:
        """Check that this checkout and this Docker can run the bundle.

        Raises:
            HostError: The fleet's definition differs here, or the images are for another platform.
        """
        own_script = f"unpack the bundle and use its own script: tar -xf {shlex.quote(str(self.path))}"
        if self._read(contents.COMPOSE_FILE) != (PROJECT / contents.COMPOSE_FILE).read_bytes():
            problem = f"it has the fleet of Bouquet {self.description.bouquet}, which differs from this checkout's"
            raise HostError(f"{self.path}: {problem}", own_script)
        if (here := image_archive.docker_platform()) != self.description.platform:
            problem = f"its images are for {self.description.platform}, and this Docker runs {here}"
            raise HostError(f"{self.path}: {problem}", f"write the bundle on {here}")

    def settings(self, home: Path) -> dict[str, str]:
        """Return settings with which the bundle's fleet starts, by name.

        Args:
            home: BOUQUET_HOME. The Hugging Face cache of the bundle is unpacked there, once.

        Raises:
            HostError: There is no space.
        """
        found = dotenv_values(stream=io.StringIO(self._read(contents.SETTINGS).decode()), interpolate=False)
        values = {name: value for name, value in found.items() if value and name in (*contents.TRAVELLING, OFFLINE)}
        cache = self._unpack_cache(home / "bundles")
        if cache is not None:
            values["HF_CACHE"] = str(cache)
        if self.description.images_for == "cpu":
            values["GPUS"] = "none"
        return values

    def packages(self, app: Path) -> PackageList:
        """Return the packages in the images.

        Args:
            app: The app's folder, to which the list is written.
        """
        path = app / contents.PACKAGES
        path.write_bytes(self._read(contents.PACKAGES))
        return replace(PackageList.read(path, app), images=self.description.tag)

    @contextmanager
    def app(self) -> Iterator[Path]:
        """Give a folder with the app's files, which is removed when the block ends."""
        with tempfile.TemporaryDirectory(prefix="bouquet-") as scratch:
            folder = Path(scratch) / self.description.name
            with zipfile.ZipFile(io.BytesIO(self._read(contents.APP))) as fab:
                fab.extractall(folder)  # noqa: S202  the checksum was right
            yield folder

    def load_images(self) -> str:
        """Load the images into Docker, unless it has them; return one line that says which.

        Raises:
            HostError: Docker fails.
        """
        tag = self.description.tag
        if image_archive.exist(tag):
            return f"images: {tag} found"
        image_archive.load(self._open(contents.IMAGES))
        return f"images: {tag} loaded"

    def _unpack_cache(self, folder: Path) -> Path | None:
        """Return where the Hugging Face cache is, which is unpacked the first time; None if the bundle has none."""
        members = [member for name, member in self._members.items() if name.startswith(f"{contents.CACHE}/")]
        if not members:
            return None
        cache = folder / hashlib.sha256(self._read(contents.CHECKSUMS)).hexdigest()[:12]
        if cache.is_dir():
            return cache / contents.CACHE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                self._tar.extractall(scratch, members, filter="data")
                unpacked = next(Path(scratch).iterdir())
                for path in (unpacked, *unpacked.rglob("*")):
                    if not path.is_symlink():
                        path.chmod(0o755 if path.is_dir() else 0o644)  # the containers have a user of their own
                unpacked.rename(cache)
        except OSError as error:
            if cache.is_dir():  # another command has unpacked it meanwhile
                return cache / contents.CACHE
            raise HostError(f"{folder}: the dataset was not unpacked ({error.strerror})", "free some space") from error
        return cache / contents.CACHE

    def _verify(self) -> None:
        if contents.CHECKSUMS not in self._members:
            raise HostError(f"{self.path}: the bundle is incomplete, {contents.CHECKSUMS} is missing", DAMAGED_HINT)
        for line in self._read(contents.CHECKSUMS).decode(errors="replace").splitlines():
            expected, _, name = line.partition("  ")
            if name not in self._members:
                raise HostError(f"{self.path}: the bundle is incomplete, {name} is missing", DAMAGED_HINT)
            if hashlib.file_digest(self._open(name), "sha256").hexdigest() != expected:  # type: ignore[arg-type]
                raise HostError(f"{self.path}: the bundle is damaged, the checksum of {name} is wrong", DAMAGED_HINT)

    def _read(self, name: str) -> bytes:
        return self._open(name).read()

    def _open(self, name: str) -> IO[bytes]:
        file = self._tar.extractfile(self._members[name]) if name in self._members else None
        if file is None:
            raise HostError(f"{self.path}: the bundle is incomplete, {name} is missing", DAMAGED_HINT)
        return file


@contextmanager
def open_bundle(path: Path) -> Iterator[Bundle]:
    """Open a bundle and verify it.

    Args:
        path: The file.

    Raises:
        SettingError: It is not a bundle.
        HostError: It cannot be read, or it is damaged or incomplete.
    """
    try:
        tar = tarfile.open(path, "r:")  # noqa: SIM115  closed below
    except tarfile.TarError as error:
        raise SettingError(SETTING, path, "is neither a folder with a Flower App nor a bundle", HINT) from error
    except OSError as error:
        raise HostError(f"{path}: it cannot be read ({error.strerror})", "give a file that you can read") from error
    with tar:
        try:
            bundle = Bundle(path, tar)
        except tarfile.TarError as error:
            raise HostError(f"{path}: the bundle is incomplete or damaged ({error})", DAMAGED_HINT) from error
        yield bundle
