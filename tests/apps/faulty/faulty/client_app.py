"""A ClientApp that counts its messages, and fails as the run-config says."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()
calls = 0  # in this process; must not be shared between runs


@app.query()
def query(message: Message, context: Context) -> Message:
    """Reply with the number of messages so far, in the Context and in this process, and the process's id."""
    global calls  # noqa: PLW0603
    calls += 1
    round_ = message.content["config"]["round"]
    time.sleep(float(context.run_config["pause"]))
    if round_ == context.run_config["fault-round"]:
        _fail(str(context.run_config["fault"]))
    counter: Any = context.state.setdefault("counter", MetricRecord({"messages": 0}))
    counter["messages"] += 1
    metrics = MetricRecord({"messages": counter["messages"], "calls": calls, "pid": os.getpid()})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def _fail(fault: str) -> None:
    match fault:
        case "raise":
            raise ZeroDivisionError("asked to divide by zero")
        case "sys-exit":
            sys.exit("asked to leave")
        case "exit":
            os._exit(1)
        case "segfault" | "kill":
            os.kill(os.getpid(), {"segfault": signal.SIGSEGV, "kill": signal.SIGKILL}[fault])
        case "hang":
            time.sleep(3600)
        case "memory":
            hoard = []
            while Path("/proc/self").exists():
                hoard.append(bytearray(os.urandom(1 << 20) * 16))
