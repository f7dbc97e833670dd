"""A ClientApp that trains by adding the node's number to the model, so that results can be computed by hand."""

import time

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Reply with the weights plus the partition-id; the number of examples is the partition-id plus 1."""
    partition_id = int(context.node_config["partition-id"])
    time.sleep(float(context.run_config["train-seconds"]))
    if partition_id == int(context.run_config["failing-partition"]):
        raise RuntimeError("this node was told to fail")
    [weights] = message.content.array_records["arrays"].to_numpy_ndarrays()
    metrics = MetricRecord({"num-examples": partition_id + 1, "train_loss": float(partition_id)})
    content = RecordDict({"arrays": ArrayRecord([weights + partition_id]), "metrics": metrics})
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Reply with a loss, and the number of partitions that this node sees."""
    [weights] = message.content.array_records["arrays"].to_numpy_ndarrays()
    num_partitions = int(context.node_config["num-partitions"])
    metrics = MetricRecord({"num-examples": 1, "eval_loss": float(weights.mean()), "num-partitions": num_partitions})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
