"""Finds the versions and hashes of packages, with uv."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import tomlkit
from uv import find_uv_bin

from bouquet.errors import HostError
from bouquet.host.bootstrap.package_index import downloads

PYPI = "https://pypi.org/simple"
LEFT_OUT = ("uv", "libclang")
"""Flower uses uv only to install packages at run time, which is disabled; TensorFlow never imports libclang."""
INDEX_NOTE = "    # from "
"""Starts the line below a package that names its index."""
MAX_REASON = 600
"""Characters of uv's explanation that an error shows."""
NETWORK_SIGNS = ("Failed to fetch", "error sending request", "network was disabled", "operation timed out")
NETWORK_HINT = "check the network; for a package mirror or a private CA, see docs/images.md"


def resolve(
    name: str, project: Mapping[str, Any], uv: Mapping[str, Any], python: str, preferred: Iterable[tuple[str, str]]
) -> str:
    """Return a requirements list with a version and hashes of every package.

    Args:
        name: The app's name, for errors.
        project: `dependencies` and `requires-python`.
        uv: The table `[tool.uv]`.
        python: The oldest Python that the list is for.
        preferred: Names and versions to prefer where they fit.

    Raises:
        HostError: A package cannot be installed.
    """
    environment = downloads(os.environ)
    with tempfile.TemporaryDirectory(prefix="bouquet-packages-") as scratch:
        manifest, output = Path(scratch) / "pyproject.toml", Path(scratch) / "requirements.txt"
        content = {"project": {"name": name, "version": "0", **project}, "tool": {"uv": dict(uv)}}
        manifest.write_text(tomlkit.dumps(content), encoding="utf-8")
        # uv prefers the versions that it finds in its output file.
        output.write_text("".join(f"{name}=={version}\n" for name, version in preferred), encoding="utf-8")
        done = subprocess.run(
            _command(manifest, output, python),
            cwd=scratch,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise _error(name, done.stderr)
        return _with_indexes(output.read_text(encoding="utf-8"), environment)


def _command(manifest: Path, output: Path, python: str) -> list[str]:
    left_out = [option for package in LEFT_OUT for option in ("--no-emit-package", package)]
    options = ("--universal", "--generate-hashes", "--no-annotate", "--no-header", "--emit-index-annotation")
    where = ("--python", sys.executable, "--python-version", python, "--no-python-downloads", "--emit-find-links")
    return [
        find_uv_bin(), "pip", "compile", "--quiet", "--color", "never", *options, *where, *left_out,
        "--output-file", str(output), str(manifest),
    ]  # fmt: skip


def _with_indexes(compiled: str, environment: Mapping[str, str]) -> str:
    """Replace the notes on indexes by options, except for indexes in the user's settings, which need none."""
    # `downloads` has set PIP_INDEX_URL if any index is set.
    names = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
    default = next((environment[name] for name in names if environment.get(name)), PYPI)
    of_user = {_address(index) for index in (default, PYPI, *environment.get("UV_EXTRA_INDEX_URL", "").split())}
    lines = compiled.splitlines()
    indexes = {_address(line.removeprefix(INDEX_NOTE)) for line in lines if line.startswith(INDEX_NOTE)}
    others = sorted(indexes - of_user)
    kept = (line for line in lines if not line.lstrip().startswith("#"))
    return "".join(f"{line}\n" for line in (*(f"--extra-index-url {index}" for index in others), *kept))


def _address(index: str) -> str:
    """Return an index's URL without user and password."""
    parts = urlsplit(index)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], path=parts.path.rstrip("/")).geturl()


def _error(name: str, stderr: str) -> HostError:
    lines = [re.sub(r"^\W+", "", line).strip() for line in stderr.splitlines()]
    if any(sign in stderr for sign in NETWORK_SIGNS):
        return HostError(f"the packages of {name} cannot be downloaded: {'; '.join(_causes(lines))}", NETWORK_HINT)
    text = " ".join(line for line in lines if line)
    explanation = re.sub(r"^.*?(?=\bBecause\b)", "", text)
    reason = re.sub(r",? we can conclude that your requirements are unsatisfiable\.$", ", no versions fit", explanation)
    hint = "correct [project] dependencies in its pyproject.toml; for a package mirror, see docs/images.md"
    return HostError(f"the packages of {name} cannot be installed: {reason[:MAX_REASON]}", hint)


def _causes(lines: list[str]) -> Iterator[str]:
    """Yield the first and the last of uv's lines about a download."""
    found = [line.removeprefix("error: ").removeprefix("Caused by: ") for line in lines if line]
    yield found[0][:MAX_REASON]
    if len(found) > 1:
        yield found[-1][:MAX_REASON]
