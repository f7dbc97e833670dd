"""A ClientApp that takes a gradient step on the node's own data."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from .task import load_data, loss, step

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Reply with the weights after one step."""
    [weights] = message.content.array_records["arrays"].to_numpy_ndarrays()
    inputs, targets = load_data(int(context.node_config["partition-id"]))
    weights = step(weights, inputs, targets, float(context.run_config["learning-rate"]))
    metrics = MetricRecord({"num-examples": len(inputs)})
    return Message(RecordDict({"arrays": ArrayRecord([weights]), "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Reply with the loss of the weights."""
    [weights] = message.content.array_records["arrays"].to_numpy_ndarrays()
    inputs, targets = load_data(int(context.node_config["partition-id"]))
    metrics = MetricRecord({"num-examples": len(inputs), "loss": loss(weights, inputs, targets)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
