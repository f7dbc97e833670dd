from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from app import model
from app.model import Images, Labels, Learner, Weights, build_model, learner

ROOT = Path(__file__).parents[3]
SEED = [42, 1, 3]


def make_data(count: int = 70) -> tuple[Images, Labels]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 32, 32, 3), np.uint8), rng.integers(0, 10, count).astype(np.uint8)


def initial() -> Weights:
    weights: Weights = build_model(0.005, seed=42).get_weights()
    return weights


def train(trainee: Learner, learning_rate: float = 0.005, seed: list[int] | None = None, epochs: int = 2) -> Weights:
    images, labels = make_data()
    weights, _ = trainee.train(
        initial(), images, labels, epochs=epochs, batch_size=32, learning_rate=learning_rate, seed=seed or SEED
    )
    return weights


def largest_difference(ours: Weights, theirs: Weights) -> float:
    return max(float(np.abs(one - other).max()) for one, other in zip(ours, theirs, strict=True))


def test_the_same_seed_gives_the_same_initial_weights() -> None:
    assert largest_difference(initial(), initial()) == 0
    assert largest_difference(initial(), build_model(0.005, seed=43).get_weights()) > 0.01


def test_a_reused_model_trains_like_a_fresh_one_whatever_it_did_before() -> None:
    fresh = train(Learner())
    reused = Learner()
    images, labels = make_data(50)
    reused.train(initial(), images, labels, epochs=3, batch_size=7, learning_rate=0.1, seed=[9])
    reused.evaluate(initial(), images, labels)
    assert largest_difference(train(reused), fresh) < 1e-6


def test_a_warm_process_trains_like_a_fresh_process(tmp_path: Path) -> None:
    train(learner(), learning_rate=0.1)
    warm = train(learner())
    code = (
        "import sys, numpy as np; from tests.unit.app.test_model import train; from app.model import learner\n"
        "np.savez(sys.argv[1], *train(learner()))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "weights.npz")], cwd=ROOT, check=True)
    with np.load(tmp_path / "weights.npz") as fresh:
        assert largest_difference(warm, [fresh[name] for name in fresh.files]) < 1e-6


def test_training_matches_keras_with_a_fresh_compile_and_the_same_batches() -> None:
    images, labels = make_data()
    ours, [scores] = learner().train(initial(), images, labels, epochs=1, batch_size=32, learning_rate=0.005, seed=SEED)

    rng = np.random.default_rng(SEED)
    dropout_seed = int(rng.integers(2**31))
    order = rng.permutation(len(images))
    model = build_model(0.005, seed=42)
    model.layers[5].seed_generator.state.assign([dropout_seed, 0])
    results, sizes = [], []
    for start in range(0, len(images), 32):
        batch = order[start : start + 32]
        results.append(model.train_on_batch(images[batch].astype(np.float32) / 255, labels[batch]))
        sizes.append(len(batch))
    loss, accuracy = np.average(np.asarray(results, float), axis=0, weights=sizes)
    assert largest_difference(ours, model.get_weights()) < 1e-5
    assert scores.loss == pytest.approx(loss, abs=1e-5)
    assert scores.accuracy == pytest.approx(accuracy, abs=1e-6)


def test_learning_rate_and_seed_change_the_weights() -> None:
    base = train(learner())
    assert largest_difference(base, train(learner(), learning_rate=0.001)) > 1e-4
    assert largest_difference(base, train(learner(), seed=[42, 2, 3])) > 1e-4


def test_evaluation_matches_keras() -> None:
    images, labels = make_data(300)  # more than one batch
    weights = train(learner())
    scores = learner().evaluate(weights, images, labels)
    model = build_model(0.005, seed=0)
    model.set_weights(weights)
    loss, accuracy = model.evaluate(images.astype(np.float32) / 255, labels, verbose=0)
    assert scores.loss == pytest.approx(loss, abs=1e-5)
    assert scores.accuracy == pytest.approx(accuracy, abs=1e-6)


def test_graphs_are_traced_once_per_process() -> None:
    traced = Learner()
    for count, batch_size, learning_rate in [(70, 32, 0.005), (64, 16, 0.1), (33, 8, 0.001)]:
        images, labels = make_data(count)
        weights, _ = traced.train(
            initial(), images, labels, epochs=2, batch_size=batch_size, learning_rate=learning_rate, seed=[count]
        )
        traced.evaluate(weights, images, labels)
    assert traced.traces == (1, 1)


def test_the_limit_of_a_gpu_is_set_before_the_first_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(model, "device", lambda: order.append("device"))
    monkeypatch.setattr(model, "Learner", lambda: order.append("Learner"))
    learner.__wrapped__()
    assert order == ["device", "Learner"]


def test_importing_keras_does_not_initialise_the_gpus() -> None:
    # A process cannot fork after it has initialised CUDA, and Bouquet's zygote forks after importing Keras.
    code = (
        "import keras, flwr_datasets; from tensorflow.python.eager import context as c; "
        "assert c._context is None or not c._context._initialized and c._context._physical_devices is None"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
