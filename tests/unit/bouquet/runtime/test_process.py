import os
import socket
from pathlib import Path

from bouquet.runtime.process import exec_module, resolve_port


def test_port_0_becomes_a_free_port_of_the_same_host() -> None:
    host, _, port = resolve_port("127.0.0.1:0").rpartition(":")
    assert host == "127.0.0.1"
    with socket.socket() as free:
        free.bind((host, int(port)))


def test_any_other_port_stays() -> None:
    assert resolve_port("0.0.0.0:9091") == "0.0.0.0:9091"


def test_a_module_keeps_the_process_and_never_comes_from_the_current_directory(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "entry.py").write_text("import os, sys; print(os.getpid(), *sys.argv[1:])")
    (tmp_path / "entry.py").write_text("print('the current directory')")
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.dup2(write, 1)
        os.chdir(tmp_path)
        os.environ["PYTHONPATH"] = str(tmp_path / "folder")
        exec_module("entry", ["--option", "value"])
    os.close(write)
    with os.fdopen(read) as output:
        assert output.read().split() == [str(pid), "--option", "value"]
    os.waitpid(pid, 0)
