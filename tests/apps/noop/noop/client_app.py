"""A ClientApp that replies immediately."""

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.query()
def query(message: Message, context: Context) -> Message:
    """Reply with one number."""
    return Message(RecordDict({"metrics": MetricRecord({"one": 1})}), reply_to=message)
