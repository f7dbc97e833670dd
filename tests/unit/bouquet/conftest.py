"""A PATH that has nothing but the scripts of the test."""

from collections.abc import Callable
from pathlib import Path

import pytest

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put scripts on a PATH that has nothing else; each notes its arguments in `calls`."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def put(**scripts: str) -> None:
        for name, body in scripts.items():
            script = tmp_path / name
            script.write_text(f'#!/bin/sh\necho "{name} $*" >> "{tmp_path}/calls"\n{body}\n')
            script.chmod(0o755)

    return put
