"""The end of a worker: as any Python process ends, although it is a fork of the zygote."""

import atexit
import faulthandler
import gc
import io
import os
import shutil
import signal
import sys
import weakref
from contextlib import suppress
from typing import NoReturn

from bouquet.executor.worker_state import EXIT_SECONDS
from bouquet.runtime.termination import ignore_sigterm

FILE_REMOVERS = (shutil.rmtree, os.remove, os.unlink, os.rmdir)
"""Exit handlers that remove files, registered before the fork: the files are the zygote's."""


def leave_files_of_zygote() -> None:
    """Have this fork keep the zygote's temporary files, which other workers use; the zygote itself removes them.

    All other exit handlers that preloaded modules have registered stay: in a process of its own, the app's would run
    them, too. `logging` and `multiprocessing`, for example, flush and join what the app has started.
    """
    for remover in FILE_REMOVERS:
        atexit.unregister(remover)
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        finalizer.detach()


def flush_files_at_exit() -> None:
    """Have this fork flush its open files after the exit handlers that it registers from now on.

    A file is closed when its object is destroyed. The zygote's objects are frozen (`gc.freeze`), because to destroy
    them costs each worker 1.2 CPU-seconds. So what only they refer to is not destroyed.
    """
    atexit.register(_flush_files)


def _flush_files() -> None:
    for candidate in gc.get_objects():  # without the frozen ones
        if isinstance(candidate, io.TextIOWrapper | io.BufferedWriter | io.BufferedRandom):
            with suppress(OSError, ValueError):  # it is closed
                candidate.flush()


def omit_leak_reports() -> None:
    """Have this process and its forks omit Triton's list of leaked objects, 40 lines, from stderr at the very end.

    PyTorch imports Triton. What the zygote has imported is frozen and never destroyed, which Triton's library takes for
    a leak. Call it before the import: exit handlers run in reverse order, so that nothing else is lost.
    """
    atexit.register(_silence_triton)


def _silence_triton() -> None:
    if "triton" in sys.modules:
        with suppress(OSError, ValueError):  # the app has closed stderr
            sys.stderr.flush()
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 2)
            os.close(null)


def exit_like_python(code: int) -> NoReturn:
    """End the interpreter: joins threads, runs exit handlers, and closes files when their objects are destroyed.

    The executor kills a process that takes longer than `EXIT_SECONDS`. The log then shows where its threads are.

    Args:
        code: The exit code.

    Raises:
        SystemExit: Always. Nothing may catch it.
    """
    ignore_sigterm()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(Exception):  # the app has closed stderr
        faulthandler.dump_traceback_later(EXIT_SECONDS)
    sys.exit(code)
