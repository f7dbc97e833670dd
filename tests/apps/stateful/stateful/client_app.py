"""A ClientApp that counts its messages: in its Context, which outlives a message, and in a global variable."""

from typing import cast

from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

answered = 0  # since this module was loaded


@app.train()
def train(message: Message, context: Context) -> Message:
    """Count a message of this type."""
    return _count(message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Count a message of this type."""
    return _count(message, context)


@app.query()
def query(message: Message, context: Context) -> Message:
    """Count a message of this type."""
    return _count(message, context)


def _count(message: Message, context: Context) -> Message:
    global answered  # noqa: PLW0603
    answered += 1
    kind = message.metadata.message_type
    counts = context.state.metric_records.setdefault("counts", MetricRecord())
    counts[kind] = cast(int, counts.get(kind, 0)) + 1
    history = context.state.config_records.setdefault("history", ConfigRecord({"kinds": []}))
    history["kinds"] = [*cast(list[str], history["kinds"]), kind]
    reply = RecordDict({"counts": counts, "history": history, "module": MetricRecord({"answered": answered})})
    return Message(reply, reply_to=message)
