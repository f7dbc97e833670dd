"""A ServerApp that sends no-op messages and prints how long the replies take."""

import json
import statistics
import time

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Measure round trips to one node and to all nodes, after a first one to all, and print them as JSON, in s."""
    wanted, trips, kib = (int(context.run_config[name]) for name in ("nodes", "trips", "model-kib"))
    while len(nodes := sorted(grid.get_node_ids())) < wanted:
        time.sleep(0.2)
    model = np.random.default_rng().bytes(kib * 1024)
    content = {"arrays": ArrayRecord([np.frombuffer(model, np.uint8)])} if kib else {}
    first = _trip(grid, nodes, content)
    one, every = _measure(grid, nodes[:1], trips, content), _measure(grid, nodes, trips, content)
    print("noop " + json.dumps({"first": round(first, 4), "one": one, "all": every}))


def _measure(grid: Grid, nodes: list[int], trips: int, content: dict[str, ArrayRecord]) -> dict[str, float]:
    times = sorted(_trip(grid, nodes, content) for _ in range(trips))
    return {
        "nodes": len(nodes),
        "median": round(statistics.median(times), 4),
        "p95": round(times[int(0.95 * (len(times) - 1))], 4),
        "worst": round(times[-1], 4),
    }


def _trip(grid: Grid, nodes: list[int], content: dict[str, ArrayRecord]) -> float:
    start = time.monotonic()
    sent = RecordDict({"config": ConfigRecord({"at": start}), **content})
    messages = [Message(sent, node, MessageType.QUERY) for node in nodes]
    replies = list(grid.send_and_receive(messages))
    seconds = time.monotonic() - start
    if len(replies) != len(nodes) or any(reply.has_error() for reply in replies):
        errors = [reply.error.reason for reply in replies if reply.has_error()]
        raise RuntimeError(f"{len(nodes)} messages, {len(replies)} replies, {len(errors)} errors: {errors[:3]}")
    return seconds
