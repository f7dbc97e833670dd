"""Fixtures of the tests of the seam to Flower."""

from pathlib import Path

import pytest
from flwr.serverapp.strategy import FedAvg, Strategy

from bouquet.flower import recorded_run as recorded_run_module


@pytest.fixture
def flower_as_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Flower is put back after the test, and so is the working directory. No plot is drawn: that takes a second."""
    monkeypatch.setattr(recorded_run_module, "plot_history", lambda rounds: b"plot" if rounds else None)
    monkeypatch.setattr(Strategy, "start", Strategy.start)
    monkeypatch.setattr(Strategy, "__init_subclass__", Strategy.__init_subclass__)
    monkeypatch.setattr(FedAvg, "_check_and_log_replies", FedAvg._check_and_log_replies)
    monkeypatch.chdir(tmp_path)
