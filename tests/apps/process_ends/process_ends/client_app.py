"""A ClientApp that leaves work to the end of its process."""

import atexit
import multiprocessing
import os
import time
from pathlib import Path

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from .endings import leave

os.environ["HF_HOME"] = "/tmp/hf-home-of-process-ends"

app = ClientApp()
calls = 0
hoard: list[bytes] = []


@app.query()
def query(message: Message, context: Context) -> Message:
    """Reply with this process's id, and with how many messages it has served."""
    global calls  # noqa: PLW0603
    calls += 1
    config = context.run_config
    if config["once"]:
        multiprocessing.set_start_method("spawn")
    if calls == 1 and config["folder"]:
        leave(Path(str(config["folder"])), f"client-{context.node_config['partition-id']}")
    if calls == 1 and config["hang"]:
        atexit.register(time.sleep, 3600)
    hoard.append(os.urandom(int(config["grow"]) << 20))
    time.sleep(float(config["pause"]))
    return Message(RecordDict({"metrics": MetricRecord({"pid": os.getpid(), "calls": calls})}), reply_to=message)
