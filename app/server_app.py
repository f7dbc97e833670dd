"""A run, from its run-config to its results: the ServerApp."""

from __future__ import annotations

import time
from logging import ERROR, INFO

from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp

from app import dataset, fleet
from app.errors import RunError
from app.results import Results
from app.roll import Roll
from app.run_config import RunConfig
from app.strategy import RecordedFedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Check the settings, train, and leave results, also of a run that fails."""
    config = RunConfig.parse(context.run_config)
    size = fleet.told_size()
    results = Results(context.run_id, context.run_config)
    try:
        run(grid, config, size, results)
        results.complete()
    except Exception as error:
        try:
            results.fail(error)
        except RunError as unwritable:
            log(ERROR, "%s", unwritable)
        raise


def run(grid: Grid, config: RunConfig, size: int | None, results: Results) -> None:
    """Choose the dataset, wait for the fleet, run FedAvg, and save the model and the plot.

    Args:
        grid: The fleet.
        config: What the run was asked to do.
        size: How many SuperNodes the fleet is to have; None where nobody says.
        results: Where to leave the files, and what to tell of the run so far.

    Raises:
        AppError: One line that says what stopped the run.
    """
    expected = size or fleet.LEAST
    results.dataset = source = dataset.choose(config.dataset)
    log(INFO, "Dataset: %s", source)
    dataset.check(source, num_partitions=expected, test_split=config.central_evaluation != "off")
    results.roll = roll = Roll(fleet.wait(grid, expected, config.fleet_deadline), size)

    # Imported here and not above, so that all of the above is refused without waiting for Keras.
    from app.model import build_model, learner  # noqa: PLC0415
    from app.partition import load_test_split  # noqa: PLC0415

    model = build_model(config.learning_rate, config.seed)
    strategy = RecordedFedAvg(config.fraction_train, config.round_deadline, roll)
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

    named: dict[str, str | int] = {"dataset": source.name, "dataset-revision": source.revision}
    if roll.num_partitions is not None:  # the run keeps its partitions, whatever becomes of the fleet meanwhile
        named["num-partitions"] = roll.num_partitions
    began = time.monotonic()
    try:
        final = strategy.start(
            grid=grid,
            initial_arrays=ArrayRecord(model.get_weights()),
            num_rounds=config.num_server_rounds,
            timeout=config.round_deadline,
            train_config=ConfigRecord(dict(named)),
            evaluate_config=ConfigRecord(dict(named)),
            evaluate_fn=evaluate_centrally if central_rounds else None,
        )
    except Exception:
        if strategy.arrays is not None:
            model.set_weights(strategy.arrays.to_numpy_ndarrays())
            results.save("last_model.keras", model.save)  # of the last round that made one
        raise
    finally:
        results.seconds = time.monotonic() - began

    from app.plot import plot_history  # noqa: PLC0415  # matplotlib takes a second that a failed run need not wait

    model.set_weights(final.arrays.to_numpy_ndarrays())
    results.save("final_model.keras", model.save)
    results.save("history.png", lambda file: plot_history(strategy.rounds, file))
    log(INFO, "Results: %s", results.folder)
