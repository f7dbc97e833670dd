"""Work that is done when a Python process ends."""

import atexit
import gzip
import logging
import logging.handlers
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

_kept: list[Any] = []  # until the process ends


class _WrittenWhenDestroyed:
    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")

    def __del__(self) -> None:
        self._file.write("destroyed")
        self._file.close()


def leave(folder: Path, name: str) -> None:
    """Leave work to the end of this process: each kind writes `<folder>/<kind>-<name>`."""
    folder.mkdir(parents=True, exist_ok=True)

    def write(kind: str, seconds: float = 0.0) -> None:
        time.sleep(seconds)
        (folder / f"{kind}-{name}").write_text(kind, encoding="utf-8")

    atexit.register(write, "atexit")
    threading.Thread(target=write, args=("thread", 0.3)).start()
    pool = ThreadPoolExecutor(1)
    for kind in ("pool-1", "pool-2"):
        pool.submit(write, kind, 0.2)
    text = (folder / f"text-{name}").open("w", encoding="utf-8")
    text.write("text")
    compressed = gzip.open(folder / f"gzip-{name}", "wt", encoding="utf-8")  # noqa: SIM115  left open
    compressed.write("gzip")
    records = logging.FileHandler(folder / f"log-{name}", delay=True)
    memory = logging.handlers.MemoryHandler(1000, logging.CRITICAL, records)
    memory.emit(logging.LogRecord("process_ends", logging.INFO, __file__, 1, "log", None, None))
    scratch = tempfile.TemporaryDirectory(prefix=f"scratch-{name}-", dir=folder)
    _kept.extend([pool, text, compressed, memory, scratch, _WrittenWhenDestroyed(folder / f"destroyed-{name}")])
