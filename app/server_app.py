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
    # Load config, and check it: Flower passes on any value of any type
    config: dict[str, Any] = context.run_config
    check_run_config(config)
    num_rounds, central_evaluation = config["num-server-rounds"], config["central-evaluation"]

    # Choose the dataset
    dataset = choose(config["dataset"])
    print(f"Dataset: {dataset.name} ({dataset.note})")
    test_data = None if central_evaluation == "off" else load_test_data(dataset)

    # Let each node load its part of it, and plot what they have
    node_ids = list(grid.get_node_ids())
    check_krum(config, len(node_ids))
    instructions = ConfigRecord({"dataset": dataset.name, "dataset-revision": dataset.revision})
    plot_label_counts(count_labels(grid, node_ids, instructions), "label_counts.png")

    # Load initial model
    model = load_model(config["learning-rate"], config["seed"])
    arrays = ArrayRecord(model.get_weights())

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        """Evaluate the global model on the dataset's test split, which no node has."""
        if test_data is None or server_round == 0 or (central_evaluation == "final" and server_round < num_rounds):
            return None
        evaluator = trainer(proximal=False)
        evaluator.set_weights(arrays.to_numpy_ndarrays())
        loss, accuracy = evaluator.evaluate(*test_data)
        return MetricRecord({"eval_loss": loss, "eval_acc": accuracy})

    # Define and start the strategy
    result = create_strategy(config).start(
        grid=grid,
        initial_arrays=arrays,
        num_rounds=num_rounds,
        train_config=instructions.copy(),
        evaluate_config=instructions.copy(),
        evaluate_fn=evaluate if test_data else None,
    )

    # Save the final model
    print("Saving final model to disk as final_model.keras...")
    model.set_weights(result.arrays.to_numpy_ndarrays())
    model.save("final_model.keras")


def create_strategy(config: dict[str, Any]) -> FedAvg:
    """Return the strategy that the run-config names, with its parameters."""
    strategy, keys = STRATEGIES[config["strategy"]]
    options: dict[str, Any] = {key.replace("-", "_"): config[key] for key in keys if config[key] != DEFAULT}
    # One node is enough, so that a fleet of one trains, and one that shrinks continues
    options |= {"min_train_nodes": 1, "min_evaluate_nodes": 1, "min_available_nodes": 1}
    return strategy(fraction_train=config["fraction-train"], **options)


def count_labels(grid: Grid, node_ids: list[int], instructions: ConfigRecord) -> dict[int, list[int]]:
    """Return each node's number of images of each class, by partition-id; raise a `RuntimeError` if no node has any."""
    messages = [Message(RecordDict({"config": instructions}), node_id, MessageType.QUERY) for node_id in node_ids]
    replies = list(grid.send_and_receive(messages))
    reasons = [str(reply.error.reason).partition("\n")[0] for reply in replies if reply.has_error()]
    if len(reasons) == len(replies):
        raise RuntimeError(f"no node can load its data: {(reasons or ['no node has replied'])[0]}")
    nodes: list[Any] = [reply.content["metrics"] for reply in replies if not reply.has_error()]
    return {node["partition-id"]: node["label-counts"] for node in nodes}
