"""SIGTERM in a process that runs an app."""

import subprocess
import sys

CODE = """
import atexit, os, signal
from bouquet.runtime.termination import exit_on_sigterm
atexit.register(print, "exit handler")
exit_on_sigterm()
try:
    os.kill(os.getpid(), signal.SIGTERM)
except Exception:
    print("caught by the app")
finally:
    os.kill(os.getpid(), signal.SIGTERM)
    print("finally")
"""


def test_the_first_sigterm_runs_exit_handlers_and_a_second_one_does_not_disturb_them() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert (done.stdout.split("\n")[:2], done.returncode) == (["finally", "exit handler"], 143), done.stderr
