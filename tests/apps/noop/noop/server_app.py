"""A ServerApp that sends no-op messages and prints how long the replies take."""

import json
import statistics
import time

from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Measure round trips to one node and to all nodes, after a warm-up, and print them as JSON, in seconds."""
    wanted, trips = int(context.run_config["nodes"]), int(context.run_config["trips"])
    while len(nodes := sorted(grid.get_node_ids())) < wanted:
        time.sleep(0.2)
    _trip(grid, nodes)
    print("noop " + json.dumps({"one": _measure(grid, nodes[:1], trips), "all": _measure(grid, nodes, trips)}))


def _measure(grid: Grid, nodes: list[int], trips: int) -> dict[str, float]:
    times = sorted(_trip(grid, nodes) for _ in range(trips))
    return {
        "nodes": len(nodes),
        "median": round(statistics.median(times), 4),
        "p95": round(times[int(0.95 * (len(times) - 1))], 4),
        "worst": round(times[-1], 4),
    }


def _trip(grid: Grid, nodes: list[int]) -> float:
    start = time.monotonic()
    messages = [Message(RecordDict({"config": ConfigRecord({"at": start})}), node, MessageType.QUERY) for node in nodes]
    replies = list(grid.send_and_receive(messages))
    seconds = time.monotonic() - start
    if len(replies) != len(nodes) or any(reply.has_error() for reply in replies):
        raise RuntimeError(f"{len(nodes)} messages, replies: {replies}")
    return seconds
