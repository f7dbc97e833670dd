"""An index of small packages on this machine, and apps that ask for them."""

import base64
import hashlib
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

APP = """
[project]
name = "{name}"
version = "1.0.0"
dependencies = {dependencies}
{project}
[tool.flwr.app.components]
serverapp = "x:app"
clientapp = "x:app"
{more}
"""


class Index:
    """A package index with an address, to which packages can be added, and which can be switched off."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Silent, directory=str(folder)))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def add(self, name: str, *versions: str, requires: tuple[str, ...] = ()) -> None:
        """Publish versions of a package, which consists of one empty module."""
        project = self.folder / name
        project.mkdir(exist_ok=True)
        for version in versions:
            _write_wheel(project, name, version, requires)
        links = [f'<a href="{file.name}#sha256={_sha256(file)}">{file.name}</a>' for file in project.glob("*.whl")]
        (project / "index.html").write_text("".join(links))

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _write_wheel(folder: Path, name: str, version: str, requires: tuple[str, ...]) -> None:
    module, info = name.replace("-", "_"), f"{name.replace('-', '_')}-{version}.dist-info"
    metadata = "".join(f"Requires-Dist: {each}\n" for each in requires)
    files = {
        f"{module}.py": f"version = '{version}'\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{metadata}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = []
    with zipfile.ZipFile(folder / f"{module}-{version}-py3-none-any.whl", "w") as wheel:
        for path, content in files.items():
            wheel.writestr(path, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
            rows.append(f"{path},sha256={digest},{len(content)}\n")
        wheel.writestr(f"{info}/RECORD", "".join([*rows, f"{info}/RECORD,,\n"]))


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """An index with Bouquet's own packages; uv and pip are set up for it, and for nothing else."""
    made = Index(tmp_path / "index")
    made.add("flwr", "1.34.0", "1.42.0", requires=("numpy", "ray ; extra == 'simulation'"))
    made.add("matplotlib", "3.10.0")
    made.add("cryptography", "46.0.0")
    made.add("numpy", "2.0.2", "2.4.0")
    for name in ("UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL", "PIP_INDEX_URL", "UV_OFFLINE", "UV_TORCH_BACKEND"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UV_DEFAULT_INDEX", made.url)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    yield made
    made.stop()


class MakeApp:
    """Writes an app into a new folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, *dependencies: str, name: str = "my-app", project: str = "", more: str = "") -> Path:
        app = self._folder / name
        app.mkdir(exist_ok=True)
        content = APP.format(name=name, dependencies=list(dependencies), project=project, more=more)
        (app / "pyproject.toml").write_text(content)
        return app


@pytest.fixture
def make_app(tmp_path: Path) -> MakeApp:
    return MakeApp(tmp_path)
