"""Ctrl-C and SIGTERM: one line, no traceback, the right exit code, and an end that waits for no thread."""

import os
import signal
import subprocess
import sys
import time

import pytest

from bouquet.host.interrupts import CtrlCCounter, Interrupted, Terminated, explains_interrupt

INTERRUPTIBLE = """
import signal, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from bouquet.host.interrupts import *
signal.signal(signal.SIGINT, {sigint})
def main():
{body}
{call}
"""
WAIT = "print('ready', flush=True); time.sleep(60)"


def interrupt(body: str, number: int, call: str = "report_interrupts(main)", sigint: str = "") -> tuple[int, str]:
    """Send a signal to a process when it is ready; return its exit code and its stderr."""
    code = INTERRUPTIBLE.format(body=f"    {body}", call=call, sigint=sigint or "signal.default_int_handler")
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, problems = process.communicate(timeout=20)
    return process.returncode, problems


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_is_one_line_and_the_exit_code_of_its_signal(number: int, code: int) -> None:
    assert interrupt(WAIT, number) == (code, "\nbouquet: interrupted\n")


def test_an_interrupt_is_explained_by_the_innermost_block() -> None:
    body = f"""
    with explains_interrupt('outer'):
        with explains_interrupt('the fleet stays up'):
            {WAIT}
"""
    assert interrupt(body, signal.SIGINT) == (130, "\nbouquet: the fleet stays up\n")


def test_an_interrupted_command_waits_for_no_thread() -> None:
    body = f"ThreadPoolExecutor().submit(time.sleep, 60); {WAIT}"
    start = time.monotonic()
    assert interrupt(body, signal.SIGINT)[0] == 130
    assert time.monotonic() - start < 15


def test_ctrl_c_during_an_import_ends_the_process_at_once() -> None:
    body = f"""
    with ends_at_once('interrupted early'):
        try:
            {WAIT}
        except BaseException:
            print('swallowed', file=sys.stderr)
"""
    assert interrupt(body, signal.SIGINT) == (130, "\nbouquet: interrupted early\n")


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    body = """
    with CtrlCCounter(), ends_at_once('no'):
        print('ready', flush=True); time.sleep(1); sys.exit(7)
"""
    assert interrupt(body, signal.SIGINT, sigint="signal.SIG_IGN") == (7, "")


def test_an_exit_code_tells_the_signals_apart() -> None:
    codes = []
    for cause in (KeyboardInterrupt(), Terminated()):
        with pytest.raises(Interrupted) as interrupted, explains_interrupt("why"):
            raise cause
        codes.append((interrupted.value.line, interrupted.value.exit_code))
    assert codes == [("why", 130), ("why", 143)]


def test_only_the_first_ctrl_c_is_an_exception_and_the_handler_is_restored() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with CtrlCCounter() as ctrl_c:
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
            assert not ctrl_c.pressed_again
            os.kill(os.getpid(), signal.SIGINT)
            assert ctrl_c.pressed_again
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_command_starts_with_few_imports_so_that_ctrl_c_finds_its_handler() -> None:
    code = "import sys, bouquet.host.entry_point; print(*sys.modules)"
    modules = subprocess.check_output([sys.executable, "-P", "-c", code], text=True).split()
    assert {name for name in modules if name.startswith("bouquet.")} == {
        "bouquet.errors",
        "bouquet.host",
        "bouquet.host.entry_point",
        "bouquet.host.interrupts",
        "bouquet.host.output_encoding",
    }
