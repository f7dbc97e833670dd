"""The instructions that TensorFlow needs."""

from pathlib import Path

import pytest

from bouquet.errors import HostError
from bouquet.host.checks import cpu_features
from bouquet.host.checks.cpu_features import cpu


def cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, machine: str = "x86_64") -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor\t: 0\nmodel name\t: QEMU Virtual CPU version 2.5+\nflags\t\t: {flags}\n\n")
    monkeypatch.setattr(cpu_features, "CPUINFO", file)
    monkeypatch.setattr("platform.machine", lambda: machine)


def test_a_cpu_without_avx_cannot_import_tensorflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo(tmp_path, monkeypatch, "fpu sse sse2 pni")
    with pytest.raises(HostError, match="this CPU lacks AVX, which TensorFlow needs; .*-cpu host"):
        cpu({"numpy", "tensorflow-cpu"})


def test_an_app_without_tensorflow_works_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo(tmp_path, monkeypatch, "fpu sse sse2 pni")
    assert "does without TensorFlow" in cpu({"numpy"})


def test_avx_passes_and_other_architectures_are_not_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo(tmp_path, monkeypatch, "fpu sse sse2 avx avx2")
    assert cpu({"tensorflow"}) == "has AVX, which TensorFlow needs"
    cpuinfo(tmp_path, monkeypatch, "fp asimd", "aarch64")
    assert cpu({"tensorflow"}) == "aarch64, not checked"
