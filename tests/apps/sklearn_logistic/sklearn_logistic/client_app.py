"""A ClientApp that runs a few iterations of scikit-learn's logistic regression on the node's own digits."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from sklearn.metrics import log_loss

from .task import CLASSES, build_model, fit, load_train

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Reply with the coefficients after training from the global ones."""
    images, labels = load_train(int(context.node_config["partition-id"]), int(context.node_config["num-partitions"]))
    arrays = message.content.array_records["arrays"].to_numpy_ndarrays()
    arrays = fit(build_model(arrays, int(context.run_config["local-iterations"])), images, labels)
    metrics = MetricRecord({"num-examples": len(labels)})
    return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Reply with the loss and accuracy of the global coefficients."""
    images, labels = load_train(int(context.node_config["partition-id"]), int(context.node_config["num-partitions"]))
    model = build_model(message.content.array_records["arrays"].to_numpy_ndarrays())
    metrics = MetricRecord(
        {
            "num-examples": len(labels),
            "loss": float(log_loss(labels, model.predict_proba(images), labels=range(CLASSES))),
            "accuracy": float(model.score(images, labels)),
        }
    )
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
