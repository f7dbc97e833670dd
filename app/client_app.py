"""The ClientApp: what a node does with a message."""

from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from app.dataset import on_node
from app.run_config import PARTITIONERS
from app.task import CLASSES, Images, Labels, load_data
from app.trainer import trainer

# Flower ClientApp
app = ClientApp()


@app.train()
def train(msg: Message, context: Context) -> Message:
    """Train the model on local data."""
    # Load the data
    x_train, y_train, _, _ = load_local_data(msg, context)

    # Load the model. It is compiled once per process, not once per message
    config: dict[str, Any] = context.run_config
    instructions: Any = msg.content["config"]
    model = trainer(proximal=config["strategy"] == "fedprox")
    model.set_weights(msg.content.array_records["arrays"].to_numpy_ndarrays())

    # Train the model
    loss, accuracy = model.fit(
        x_train,
        y_train,
        epochs=config["local-epochs"],
        batch_size=config["batch-size"],
        learning_rate=config["learning-rate"],
        seed=[config["seed"], instructions["server-round"], int(context.node_config["partition-id"])],
        proximal_mu=instructions.get("proximal-mu", 0.0),
        verbose=config["verbose"],
    )

    # Pack and send the model weights and metrics as a message
    metrics = MetricRecord({"train_loss": loss, "train_acc": accuracy, "num-examples": len(x_train)})
    content = RecordDict({"arrays": ArrayRecord(model.get_weights()), "metrics": metrics})
    return Message(content=content, reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    """Evaluate the model on local data."""
    # Load the data
    _, _, x_test, y_test = load_local_data(msg, context)

    # Load the model
    model = trainer(proximal=context.run_config["strategy"] == "fedprox")
    model.set_weights(msg.content.array_records["arrays"].to_numpy_ndarrays())

    # Evaluate the model
    loss, accuracy = model.evaluate(x_test, y_test)

    # Pack and send the metrics as a message
    metrics = MetricRecord({"eval_loss": loss, "eval_acc": accuracy, "num-examples": len(x_test)})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=msg)


@app.query()
def count_labels(msg: Message, context: Context) -> Message:
    """Count the images of each class, for the picture of the label counts."""
    _, y_train, _, y_test = load_local_data(msg, context)
    counts = np.bincount(np.concatenate([y_train, y_test]), minlength=CLASSES).tolist()
    metrics = MetricRecord({"partition-id": int(context.node_config["partition-id"]), "label-counts": counts})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=msg)


def load_local_data(msg: Message, context: Context) -> tuple[Images, Labels, Images, Labels]:
    """Return this node's partition of the dataset that the ServerApp has chosen: x_train, y_train, x_test, y_test."""
    config: dict[str, Any] = context.run_config
    node: dict[str, Any] = context.node_config
    chosen: Any = msg.content["config"]
    dataset = on_node(chosen["dataset"], chosen["dataset-revision"], node.get("dataset"))
    partitioner = (config["partitioner"], *(config[key] for key in PARTITIONERS[config["partitioner"]]))
    return load_data(dataset, node["partition-id"], node["num-partitions"], partitioner, config["seed"])
