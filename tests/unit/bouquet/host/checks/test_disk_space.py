"""The disks that the fleet writes to."""

import pytest

from bouquet.host.checks.disk_space import disk
from bouquet.host.doctor import run_checks


def test_too_little_disk_is_what_make_up_would_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("usage", (), {"free": 1}))
    [result] = run_checks({"disk": disk})
    assert not result.ok
    assert "5 GiB needed" in result.message
