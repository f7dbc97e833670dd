"""A ClientApp that adds its partition-id plus one to the model, so that no two replies are equal."""

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Reply with the model plus `partition-id` + 1."""
    layers = message.content.array_records["arrays"].to_numpy_ndarrays(keep_input=False)
    for layer in layers:
        np.add(layer, int(context.node_config["partition-id"]) + 1, out=layer)
    b"x" * (int(context.run_config["node-hoard-mib"]) << 20)
    content = RecordDict({"arrays": ArrayRecord(layers), "metrics": MetricRecord({"num-examples": 1})})
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Reply with the mean of the first layer."""
    first = next(iter(message.content.array_records["arrays"].values())).numpy()
    metrics = MetricRecord({"num-examples": 1, "mean": float(np.mean(first))})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
