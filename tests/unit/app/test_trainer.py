from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from app.task import Images, Labels, load_model
from app.trainer import Trainer, Weights, trainer

ROOT = Path(__file__).parents[3]
SEED = [42, 1, 3]


def make_data(count: int = 70) -> tuple[Images, Labels]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 32, 32, 3), np.uint8), rng.integers(0, 10, count).astype(np.uint8)


def initial() -> Weights:
    weights: Weights = load_model(0.005, seed=42).get_weights()
    return weights


def train(
    trainee: Trainer, learning_rate: float = 0.005, seed: list[int] | None = None, epochs: int = 2, mu: float = 0.0
) -> Weights:
    trainee.set_weights(initial())
    trainee.fit(
        *make_data(), epochs=epochs, batch_size=32, learning_rate=learning_rate, seed=seed or SEED, proximal_mu=mu
    )
    return trainee.get_weights()


def largest_difference(ours: Weights, theirs: Weights) -> float:
    return max(float(np.abs(one - other).max()) for one, other in zip(ours, theirs, strict=True))


def test_the_same_seed_gives_the_same_initial_weights() -> None:
    assert largest_difference(initial(), initial()) == 0
    assert largest_difference(initial(), load_model(0.005, seed=43).get_weights()) > 0.01


def test_a_reused_model_trains_like_a_fresh_one_whatever_it_did_before() -> None:
    fresh = train(Trainer(proximal=False))
    reused = Trainer(proximal=False)
    reused.set_weights(initial())
    reused.fit(*make_data(50), epochs=3, batch_size=7, learning_rate=0.1, seed=[9])
    reused.evaluate(*make_data(50))
    assert largest_difference(train(reused), fresh) < 1e-6


def test_a_warm_process_trains_like_a_fresh_process(tmp_path: Path) -> None:
    train(trainer(proximal=False), learning_rate=0.1)
    warm = train(trainer(proximal=False))
    code = (
        "import sys, numpy as np; from tests.unit.app.test_trainer import train; from app.trainer import trainer\n"
        "np.savez(sys.argv[1], *train(trainer(proximal=False)))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "weights.npz")], cwd=ROOT, check=True)
    with np.load(tmp_path / "weights.npz") as fresh:
        assert largest_difference(warm, [fresh[name] for name in fresh.files]) < 1e-6


def test_training_matches_keras_with_a_fresh_compile_and_the_same_batches() -> None:
    images, labels = make_data()
    trainer(proximal=False).set_weights(initial())
    scores = trainer(proximal=False).fit(images, labels, epochs=1, batch_size=32, learning_rate=0.005, seed=SEED)
    ours = trainer(proximal=False).get_weights()

    rng = np.random.default_rng(SEED)
    dropout_seed = int(rng.integers(2**31))
    order = rng.permutation(len(images))
    model = load_model(0.005, seed=42)
    model.layers[5].seed_generator.state.assign([dropout_seed, 0])
    results, sizes = [], []
    for start in range(0, len(images), 32):
        batch = order[start : start + 32]
        results.append(model.train_on_batch(images[batch].astype(np.float32) / 255, labels[batch]))
        sizes.append(len(batch))
    assert largest_difference(ours, model.get_weights()) < 1e-5
    assert scores == pytest.approx(np.average(np.asarray(results, float), axis=0, weights=sizes), abs=1e-5)


def test_fedprox_trains_with_the_loss_of_its_paper_written_out() -> None:
    images, labels = make_data()
    mu, rate = 0.5, 0.001  # Adam scales the rounding of a tiny gradient up to its learning rate
    ours = train(Trainer(proximal=True), rate, epochs=1, mu=mu)

    rng = np.random.default_rng(SEED)
    dropout_seed = int(rng.integers(2**31))
    order = rng.permutation(len(images))
    model = load_model(rate, seed=42)
    start_weights = [tf.constant(weight) for weight in model.get_weights()]
    model.layers[5].seed_generator.state.assign([dropout_seed, 0])
    for start in range(0, len(images), 32):
        batch = order[start : start + 32]
        with tf.GradientTape() as tape:
            predicted = model(images[batch].astype(np.float32) / 255, training=True)
            loss = tf.reduce_mean(tf.keras.losses.sparse_categorical_crossentropy(labels[batch], predicted))
            for weight, origin in zip(model.trainable_variables, start_weights, strict=True):
                loss += mu / 2 * tf.reduce_sum((weight - origin) ** 2)
        model.optimizer.apply_gradients(
            zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
        )
    assert largest_difference(ours, model.get_weights()) < 1e-5
    assert largest_difference(ours, train(trainer(proximal=False), rate, epochs=1)) > 1e-4


def test_the_proximal_term_does_not_change_the_evaluation() -> None:
    proximal = Trainer(proximal=True)
    train(proximal, mu=10.0)
    for each in (proximal, trainer(proximal=False)):
        each.set_weights(initial())
    assert proximal.evaluate(*make_data()) == pytest.approx(trainer(proximal=False).evaluate(*make_data()), abs=1e-6)


def test_learning_rate_and_seed_change_the_weights() -> None:
    base = train(trainer(proximal=False))
    assert largest_difference(base, train(trainer(proximal=False), learning_rate=0.001)) > 1e-4
    assert largest_difference(base, train(trainer(proximal=False), seed=[42, 2, 3])) > 1e-4


def test_evaluation_matches_keras() -> None:
    images, labels = make_data(300)  # more than one batch
    weights = train(trainer(proximal=False))
    model = load_model(0.005, seed=0)
    model.set_weights(weights)
    expected = model.evaluate(images.astype(np.float32) / 255, labels, verbose=0)
    assert trainer(proximal=False).evaluate(images, labels) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("proximal", [False, True])
def test_graphs_are_traced_once_per_process(proximal: bool) -> None:
    traced = Trainer(proximal=proximal)
    for count, batch_size, learning_rate in [(70, 32, 0.005), (64, 16, 0.1), (33, 8, 0.001)]:
        traced.set_weights(initial())
        traced.fit(*make_data(count), epochs=2, batch_size=batch_size, learning_rate=learning_rate, seed=[count])
        traced.evaluate(*make_data(count))
    for graph in (traced.train_graph, traced.test_graph):
        assert graph.experimental_get_tracing_count() == 1


def test_every_epoch_is_printed_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    trainer(proximal=False).set_weights(initial())
    for verbose in (False, True):
        trainer(proximal=False).fit(
            *make_data(), epochs=2, batch_size=32, learning_rate=0.1, seed=SEED, verbose=verbose
        )
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == ["Epoch 1", "Epoch 2"]


def test_importing_keras_does_not_initialise_the_gpus() -> None:
    # A process cannot fork after it has initialised CUDA, and Bouquet's zygote forks after importing Keras.
    code = (
        "import keras, flwr_datasets; from tensorflow.python.eager import context as c; "
        "assert c._context is None or not c._context._initialized and c._context._physical_devices is None"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
