"""A ServerApp that prints what each node's file has in the end, where it is, and which processes wrote it."""

import json
import time

from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Send each node the messages of all rounds, and print the last reports as JSON."""
    while len(nodes := sorted(grid.get_node_ids())) < int(context.run_config["nodes"]):
        time.sleep(0.2)
    reports: dict[int, dict[str, object]] = {}
    processes: dict[int, set[object]] = {node: set() for node in nodes}
    for server_round in range(int(context.run_config["num-server-rounds"])):
        content = RecordDict({"config": ConfigRecord({"server-round": server_round})})
        for reply in grid.send_and_receive([Message(content, node, MessageType.QUERY) for node in nodes]):
            node = reply.metadata.src_node_id
            reports[node] = dict(reply.content.config_records["report"])
            processes[node].add(reports[node].pop("process"))
    nodes_reports = [{**reports[node], "processes": len(processes[node])} for node in nodes]
    print(f"working_folder {json.dumps({'nodes': nodes_reports})}")
