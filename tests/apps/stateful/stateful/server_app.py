"""A ServerApp that sends each node messages of all three types in turn, and prints the nodes' counts."""

import json
import time
from typing import Any

from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.serverapp import Grid, ServerApp

app = ServerApp()

started = 0  # since this module was loaded


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Send the messages of all rounds, and print the counts in every reply of each node as JSON."""
    global started  # noqa: PLW0603
    started += 1
    while len(nodes := sorted(grid.get_node_ids())) < int(context.run_config["nodes"]):
        time.sleep(0.2)
    replies: dict[int, list[dict[str, Any]]] = {node: [] for node in nodes}
    for server_round in range(1, int(context.run_config["num-server-rounds"]) + 1):
        if server_round > 1:
            time.sleep(float(context.run_config["pause"]))
        content = RecordDict({"config": ConfigRecord({"server-round": server_round})})
        for kind in (MessageType.TRAIN, MessageType.EVALUATE, MessageType.QUERY):
            for reply in grid.send_and_receive([Message(content, node, kind) for node in nodes]):
                replies[reply.metadata.src_node_id].append(_report(reply))
    print(f"stateful {json.dumps({'started': started, 'replies': list(replies.values())})}")


def _report(reply: Message) -> dict[str, Any]:
    """Return the counts in a reply; raise `ValueError` if the node failed."""
    return {
        "counts": dict(reply.content.metric_records["counts"]),
        "kinds": reply.content.config_records["history"]["kinds"],
        "answered": reply.content.metric_records["module"]["answered"],
    }
