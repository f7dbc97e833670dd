"""The ServerApp: one run."""

from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from app.dataset import choose
from app.label_counts import plot_label_counts
from app.run_config import DEFAULT, STRATEGIES, check_krum, check_run_config
from app.task import load_model, load_test_data
from app.trainer import trainer

# Create the ServerApp
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Main entry point for the ServerApp."""
    # Load config, and check it, because Flower accepts any value of any type
    config: dict[str, Any] = context.run_config
    check_run_config(config)
    central_evaluation, num_rounds = config["central-evaluation"], config["num-server-rounds"]

    # Choose the dataset, and tell all nodes which one it is
    dataset = choose(config["dataset"])
    node_ids = list(grid.get_node_ids())
    check_krum(config, len(node_ids))
    dataset.check_files(len(node_ids), test_split=central_evaluation != "off")
    chosen = {"dataset": dataset.name, "dataset-revision": dataset.revision}

    # Load initial model
    model = load_model(config["learning-rate"], config["seed"])
    arrays = ArrayRecord(model.get_weights())

    # Plot how many images of each class each node has
    plot_label_counts(count_labels(grid, node_ids, chosen), "label_counts.png")

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        """Evaluate the global model on the dataset's test split, which no node has."""
        if server_round == 0 or (central_evaluation == "final" and server_round < num_rounds):
            return None
        trainer().set_weights(arrays.to_numpy_ndarrays())
        loss, accuracy = trainer().evaluate(*load_test_data(dataset))
        return MetricRecord({"eval_loss": loss, "eval_acc": accuracy})

    # Define and start the strategy
    result = create_strategy(config).start(
        grid=grid,
        initial_arrays=arrays,
        num_rounds=num_rounds,
        train_config=ConfigRecord(dict(chosen)),
        evaluate_config=ConfigRecord(dict(chosen)),
        evaluate_fn=evaluate if central_evaluation != "off" else None,
    )

    # Save the final model
    print("Saving final model to disk as final_model.keras...")
    model.set_weights(result.arrays.to_numpy_ndarrays())
    model.save("final_model.keras")


def create_strategy(config: dict[str, Any]) -> FedAvg:
    """Return the strategy that the run-config names, with its parameters."""
    strategy, keys = STRATEGIES[config["strategy"]]
    parameters = {key.replace("-", "_"): config[key] for key in keys if config[key] != DEFAULT}
    # One node is enough: a fleet that shrinks goes on with the nodes that remain
    minimum = {"min_train_nodes": 1, "min_evaluate_nodes": 1, "min_available_nodes": 1}
    return strategy(fraction_train=config["fraction-train"], **minimum, **parameters)


def count_labels(grid: Grid, node_ids: list[int], chosen: dict[str, Any]) -> dict[int, list[int]]:
    """Return the number of images of each class that each node has, by partition-id.

    Raises:
        RuntimeError: No node can load its data.
    """
    content = RecordDict({"config": ConfigRecord(chosen)})
    replies = list(grid.send_and_receive([Message(content, node_id, MessageType.QUERY) for node_id in node_ids]))
    errors = [reply.error.reason for reply in replies if reply.has_error()]
    if errors and len(errors) == len(replies):
        raise RuntimeError(f"no node can load its data: {errors[0]}")
    counts: list[Any] = [reply.content["metrics"] for reply in replies if not reply.has_error()]
    return {node["partition-id"]: node["label-counts"] for node in counts}
