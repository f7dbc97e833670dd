"""The ClientApp: how a node answers train, evaluate and query messages."""

from logging import INFO

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from app.device import device
from app.model import TENSORFLOW_VERSION, learner
from app.node_config import Node, name_errors
from app.run_config import RunConfig
from app.run_log import log

app = ClientApp(mods=[name_errors])


@app.train()
def train(message: Message, context: Context) -> Message:
    """Reply with the weights of the global model after training on this node's train images."""
    config, node = RunConfig.parse(context.run_config), Node.parse(context.node_config)
    images = node.partition(message, config).train
    server_round = int(message.content.config_records["config"]["server-round"])  # type: ignore[arg-type]
    weights, epochs = learner().train(
        message.content.array_records["arrays"].to_numpy_ndarrays(),
        images.images,
        images.labels,
        epochs=config.local_epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        seed=[config.seed, server_round, node.partition_id],
    )
    if config.verbose:
        for number, scores in enumerate(epochs, 1):
            log(INFO, "Epoch %d: loss %.4f, accuracy %.4f", number, scores.loss, scores.accuracy)
    metrics = MetricRecord(
        {"train_loss": epochs[-1].loss, "train_acc": epochs[-1].accuracy, "num-examples": len(images)}
    )
    content = RecordDict({"arrays": ArrayRecord(weights), "metrics": metrics, "node": node.record()})
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Reply with the global model's scores on this node's test images, which are never trained on."""
    config, node = RunConfig.parse(context.run_config), Node.parse(context.node_config)
    images = node.partition(message, config).test
    scores = learner().evaluate(
        message.content.array_records["arrays"].to_numpy_ndarrays(), images.images, images.labels
    )
    metrics = MetricRecord({"eval_loss": scores.loss, "eval_acc": scores.accuracy, "num-examples": len(images)})
    return Message(RecordDict({"metrics": metrics, "node": node.record()}), reply_to=message)


@app.query("partition_id")
def partition_id(message: Message, context: Context) -> Message:
    """Reply with this node's partition-id, without loading the partition."""
    return Message(RecordDict({"node": Node.parse(context.node_config).record()}), reply_to=message)


@app.query()
def query(message: Message, context: Context) -> Message:
    """Reply with a description of this node: its partition, its images of each class, and what it computes with."""
    config, node = RunConfig.parse(context.run_config), Node.parse(context.node_config)
    partition = node.partition(message, config)
    description = ConfigRecord(
        {
            "partition-id": node.partition_id,
            "num-partitions": node.num_partitions,
            "num-examples": len(partition),
            "label-counts": partition.label_counts(),
            "tensorflow": TENSORFLOW_VERSION,
            "device": device(),
        }
    )
    return Message(RecordDict({"node": description}), reply_to=message)
