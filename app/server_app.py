"""The ServerApp: one run, from its run-config to its results."""

from __future__ import annotations

import time
from logging import ERROR, INFO

from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp

from app import dataset, fleet
from app.exceptions import RunError
from app.participants import Participants
from app.results import Results
from app.run_config import RunConfig
from app.run_log import log
from app.strategy import RecordedFedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Check the settings, train, and write results, also for a run that fails."""
    config = RunConfig.parse(context.run_config)
    size = fleet.configured_size()
    results = Results(context.run_id, context.run_config)
    try:
        run(grid, config, size, results)
        results.complete()
    except Exception as error:
        try:
            results.fail(error)
        except RunError as write_error:
            log(ERROR, "%s", write_error)
        raise


def run(grid: Grid, config: RunConfig, size: int | None, results: Results) -> None:
    """Choose the dataset, wait for the fleet, run FedAvg, and save the model and the plot.

    Args:
        grid: The fleet.
        config: The run-config.
        size: The configured size of the fleet; None if no size is configured.
        results: Gets the run's record as it grows, and writes the files.

    Raises:
        AppError: The run failed; the message has the reason and the fix, or the nodes' errors.
    """
    expected = size or fleet.MIN_NODES
    results.dataset = source = dataset.choose(config.dataset)
    log(INFO, "Dataset: %s", source)
    dataset.check(source, num_partitions=expected, test_split=config.central_evaluation != "off")
    participants = Participants(fleet.await_fleet(grid, expected, config.fleet_deadline), size)
    results.participants = participants

    # Imported only now, so that the errors above come without the seconds that importing Keras takes.
    from app.model import build_model, learner  # noqa: PLC0415
    from app.partition import load_test_split  # noqa: PLC0415

    model = build_model(config.learning_rate, config.seed)
    hint = f"give a lower learning-rate than {config.learning_rate:g}"
    strategy = RecordedFedAvg(config.fraction_train, config.round_deadline, participants, hint)
    results.rounds = strategy.rounds
    central_rounds = {
        "off": range(0),
        "final": range(config.num_server_rounds, config.num_server_rounds + 1),
        "every-round": range(1, config.num_server_rounds + 1),
    }[config.central_evaluation]

    def evaluate_centrally(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        if server_round not in central_rounds:
            return None
        images = load_test_split(source)
        scores = learner().evaluate(arrays.to_numpy_ndarrays(), images.images, images.labels)
        strategy.rounds[-1].central = {"eval_loss": scores.loss, "eval_acc": scores.accuracy}
        return MetricRecord({"eval_loss": scores.loss, "eval_acc": scores.accuracy})

    message_config: dict[str, str | int] = {"dataset": source.name, "dataset-revision": source.revision}
    if participants.num_partitions is not None:  # the run keeps its partitions while the fleet changes
        message_config["num-partitions"] = participants.num_partitions
    started = time.monotonic()
    try:
        final = strategy.start(
            grid=grid,
            initial_arrays=ArrayRecord(model.get_weights()),
            num_rounds=config.num_server_rounds,
            timeout=config.round_deadline,
            train_config=ConfigRecord(dict(message_config)),
            evaluate_config=ConfigRecord(dict(message_config)),
            evaluate_fn=evaluate_centrally if central_rounds else None,
        )
    except Exception:
        if strategy.arrays is not None:
            model.set_weights(strategy.arrays.to_numpy_ndarrays())
            results.save("last_model.keras", model.save)  # from the last round that was aggregated
        raise
    finally:
        results.seconds = time.monotonic() - started

    from app.plot import plot_history  # noqa: PLC0415  # importing matplotlib takes a second

    model.set_weights(final.arrays.to_numpy_ndarrays())
    results.save("final_model.keras", model.save)
    results.save("history.png", lambda file: plot_history(strategy.rounds, file))
    log(INFO, "Results: %s", results.folder)
