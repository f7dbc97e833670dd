"""A ServerApp that sends numbered messages and prints every reply."""

import json
import os
import signal
import time
from typing import Any

from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Print one line of JSON per reply: round, seconds, and the metrics or the error."""
    while len(nodes := sorted(grid.get_node_ids())) < int(context.run_config["nodes"]):
        time.sleep(0.2)
    print("faulty ready", flush=True)
    for round_ in range(1, int(context.run_config["rounds"]) + 1):
        content = RecordDict({"config": ConfigRecord({"round": round_})})
        start = time.monotonic()
        for reply in grid.send_and_receive([Message(content, node, MessageType.QUERY) for node in nodes]):
            line: dict[str, Any] = {"round": round_, "seconds": round(time.monotonic() - start, 2)}
            line["node"] = reply.metadata.src_node_id
            if reply.has_error():
                line["error"] = reply.error.reason
            else:
                line.update(reply.content.metric_records["metrics"].items())
            print("faulty " + json.dumps(line), flush=True)
        match context.run_config["server-fault"]:
            case "raise":
                raise ZeroDivisionError("asked to divide by zero")
            case "exit":
                os._exit(1)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
