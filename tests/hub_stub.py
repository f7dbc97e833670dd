"""A dataset hub of the test's own: as much of the HTTP API as `datasets` needs to load one dataset of parquet files."""

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

COMMIT = "c" * 40


@contextmanager
def serve_hub(repo: str, files: dict[str, bytes], requested: list[str] | None = None) -> Iterator[str]:
    """Serve a dataset on a free port of 127.0.0.1; the value is the address for HF_ENDPOINT.

    Args:
        repo: Its name: user/name.
        files: By path, what its repository has.
        requested: Gets the path of each request.
    """

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.do_GET()

        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            if requested is not None:
                requested.append(path)
            api = f"/api/datasets/{repo}"
            if path.startswith(f"{api}/tree/"):
                self._json(_list(files, path.split("/tree/")[1].partition("/")[2], recursive="recursive=True" in query))
            elif path.startswith(f"{api}/paths-info/"):
                self._json([_entry(name, content) for name, content in files.items()])
            elif path in (api, f"{api}/revision/main", f"{api}/revision/{COMMIT}"):
                self._json({"id": repo, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]})
            elif path.startswith(f"/datasets/{repo}/resolve/"):
                name = path.split("/resolve/")[1].partition("/")[2]
                if name in files:
                    self._answer(200, files[name], {"ETag": f'"{_oid(files[name])}"', "X-Repo-Commit": COMMIT})
                else:
                    self._answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            else:
                self._answer(404, b"", {"X-Error-Code": "RepoNotFound"})

        def _json(self, value: object) -> None:
            self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response_only(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def make_parquet(folder: Path, rows: int = 8) -> bytes:
    """Return a parquet file with the columns `x` and `label`."""
    import pyarrow as pa  # type: ignore[import-untyped]
    from pyarrow import parquet

    file = folder / "made.parquet"
    parquet.write_table(
        pa.table({"x": [float(row) for row in range(rows)], "label": [row % 2 for row in range(rows)]}), file
    )
    return file.read_bytes()


def _list(files: dict[str, bytes], folder: str, *, recursive: bool) -> list[dict[str, object]]:
    """Return what a folder of the repository has."""
    entries: dict[str, dict[str, object]] = {}
    for name, content in files.items():
        path = PurePosixPath(name)
        for each in (path, *path.parents[:-1]):
            if each.parent == PurePosixPath(folder) or (recursive and each.is_relative_to(folder)):
                is_file = each == path
                entries[str(each)] = (
                    _entry(name, content) if is_file else {"type": "directory", "path": str(each), "oid": ""}
                )
    return list(entries.values())


def _oid(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


def _entry(name: str, content: bytes) -> dict[str, object]:
    return {"type": "file", "path": name, "size": len(content), "oid": _oid(content)}
