"""A ServerApp that asks every node for its rows, and loads the dataset itself."""

import json
import time

import datasets
from flwr.app import Context, Message, MessageType, RecordDict
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Print what the nodes found, or their errors, as JSON."""
    while len(nodes := sorted(grid.get_node_ids())) < int(context.run_config["nodes"]):
        time.sleep(0.2)
    start = time.monotonic()
    replies = list(grid.send_and_receive([Message(RecordDict(), node, MessageType.QUERY) for node in nodes]))
    seconds = time.monotonic() - start
    found = [reply.content.config_records["found"] for reply in replies if reply.has_content()]
    report = {
        "seconds": round(seconds, 1),
        "rows": [record["rows"] for record in found],
        "node-configs": [json.loads(str(record["node-config"])) for record in found],
        "errors": [reply.error.reason for reply in replies if reply.has_error()],
    }
    print("hub_dataset " + json.dumps(report))
    if context.run_config["on-server"]:
        print("rows on the server:", len(datasets.load_dataset(str(context.run_config["dataset"]), split="train")))
