"""A ClientApp that appends a line to a file in its working directory with each message."""

import os
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

NOTES = Path("notes.txt")

app = ClientApp()


@app.query()
def query(message: Message, context: Context) -> Message:
    """Append this node's partition-id to the file; reply with the file's lines, the folder and the process."""
    with NOTES.open("a") as notes:
        notes.write(f"{context.node_config['partition-id']}\n")
    report = ConfigRecord({"lines": NOTES.read_text().split(), "folder": str(Path.cwd()), "process": os.getpid()})
    return Message(RecordDict({"report": report}), reply_to=message)
