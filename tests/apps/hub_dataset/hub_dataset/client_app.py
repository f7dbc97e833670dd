"""A ClientApp that loads its partition of a dataset, as Flower's quickstarts do."""

import json

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr_datasets import FederatedDataset
from flwr_datasets.partitioner import IidPartitioner

app = ClientApp()


@app.query()
def query(message: Message, context: Context) -> Message:
    """Reply with the number of rows, and with the node config."""
    config = context.node_config
    partitioner = IidPartitioner(num_partitions=int(config["num-partitions"]))
    dataset = FederatedDataset(dataset=str(context.run_config["dataset"]), partitioners={"train": partitioner})
    rows = len(dataset.load_partition(int(config["partition-id"])))
    found = ConfigRecord({"rows": rows, "node-config": json.dumps(dict(config))})
    return Message(RecordDict({"found": found}), reply_to=message)
