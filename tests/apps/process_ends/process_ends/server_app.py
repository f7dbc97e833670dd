"""A ServerApp that leaves work to the end of its process, and prints every reply."""

import json
import time
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.serverapp import Grid, ServerApp

from .endings import leave

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Print one line of JSON per reply: the round, and the metrics or the error."""
    if context.run_config["folder"]:
        leave(Path(str(context.run_config["folder"])), "server")
    while len(nodes := sorted(grid.get_node_ids())) < int(context.run_config["nodes"]):
        time.sleep(0.2)
    print("process_ends ready", flush=True)
    for round_ in range(1, int(context.run_config["rounds"]) + 1):
        content = RecordDict({"config": ConfigRecord({"round": round_})})
        for reply in grid.send_and_receive([Message(content, node, MessageType.QUERY) for node in nodes]):
            line: dict[str, Any] = {"round": round_}
            if reply.has_error():
                line["error"] = reply.error.reason
            else:
                line.update(reply.content.metric_records["metrics"].items())
            print("process_ends " + json.dumps(line), flush=True)
