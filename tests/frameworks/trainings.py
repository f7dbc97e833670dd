"""One small training for each framework: what a ClientApp does first. Each returns a loss.

The modules are imported by name, because no environment has all of them.
"""

from importlib import import_module
from typing import Any

ROWS, COLUMNS = 2000, 20


def keras() -> float:
    """Train as the shipped app does, on a partition that flwr-datasets makes."""
    datasets: Any = import_module("datasets")
    partitioners: Any = import_module("flwr_datasets.partitioner")
    x, y = _data()
    partitioner = partitioners.IidPartitioner(num_partitions=2)
    partitioner.dataset = datasets.Dataset.from_dict({"x": x.tolist(), "y": y.tolist()})
    partition = partitioner.load_partition(0).with_format("numpy")[:]
    return _train_keras(partition["x"].astype("float32"), partition["y"])


def keras_torch() -> float:
    """Train Keras on the PyTorch backend."""
    _assert_cuda_survives()
    return _train_keras(*_data())


def pandas() -> float:
    """Fit a line to a table, with NumPy's threads."""
    numpy: Any = import_module("numpy")
    x, y = _data()
    table = import_module("pandas").DataFrame(x).assign(y=y)
    means = table.groupby("y").mean().to_numpy()
    weights = numpy.linalg.lstsq(x.astype("float64"), y, rcond=None)[0]
    large = numpy.random.default_rng(0).random((600, 600))
    return float(((x @ weights - y) ** 2).mean() + 0 * (large @ large).sum() + 0 * means.sum())


def sklearn() -> float:
    """Fit a linear model and a forest with two threads."""
    x, y = _data()
    linear = import_module("sklearn.linear_model").LogisticRegression().fit(x, y)
    forest = import_module("sklearn.ensemble").RandomForestClassifier(20, n_jobs=2).fit(x, y)
    return 2 - float(linear.score(x, y)) - float(forest.score(x, y))


def xgboost() -> float:
    """Boost five trees."""
    library: Any = import_module("xgboost")
    x, y = _data()
    matrix = library.DMatrix(x, label=y)
    booster = library.train({"objective": "binary:logistic", "nthread": 2}, matrix, num_boost_round=5)
    return float(((booster.predict(matrix) - y) ** 2).mean())


xgboost_cuda = xgboost


def lightgbm() -> float:
    """Boost five trees."""
    x, y = _data()
    model = import_module("lightgbm").LGBMClassifier(n_estimators=5, n_jobs=2, verbose=-1).fit(x, y)
    return 1 - float(model.score(x, y))


def catboost() -> float:
    """Boost five trees."""
    x, y = _data()
    model = import_module("catboost").CatBoostClassifier(
        iterations=5, thread_count=2, verbose=False, allow_writing_files=False
    )
    return 1 - float(model.fit(x, y).score(x, y))


def torch() -> float:
    """Train a convolution with a DataLoader that has a process of its own, as Flower's quickstart does."""
    library: Any = import_module("torch")
    transforms: Any = import_module("torchvision.transforms")
    _assert_cuda_survives()
    x, y = _data()
    images = transforms.Normalize(0.5, 0.5)(library.tensor(x[:, :16]).reshape(-1, 1, 4, 4))
    model = library.nn.Sequential(
        library.nn.Conv2d(1, 4, 3), library.nn.ReLU(), library.nn.Flatten(), library.nn.Linear(16, 2)
    )
    data = library.utils.data.TensorDataset(images, library.tensor(y).long())
    loader = library.utils.data.DataLoader(data, batch_size=100, num_workers=1)
    return _train_torch(model, lambda model, inputs: model(inputs), loader)


def transformers() -> float:
    """Train a small BERT made from a configuration, without the hub."""
    library: Any = import_module("transformers")
    torch: Any = import_module("torch")
    _assert_cuda_survives()
    config = library.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    model = library.BertForSequenceClassification(config)
    tokens = torch.randint(0, 50, (200, 8))
    batches = [(tokens[start : start + 50], tokens[start : start + 50, 0] % 2) for start in range(0, 200, 50)]
    return _train_torch(model, lambda model, inputs: model(inputs).logits, batches)


def _assert_cuda_survives() -> None:
    """Assert that nothing has looked for GPUs before the fork: PyTorch would refuse to use one."""
    torch: Any = import_module("torch")
    assert not torch.cuda._is_in_bad_fork()


def _data() -> tuple[Any, Any]:
    """Return features, float32 of shape (ROWS, COLUMNS), and labels 0 and 1 that a linear model can learn."""
    numpy: Any = import_module("numpy")
    random = numpy.random.default_rng(1)
    x = random.normal(size=(ROWS, COLUMNS)).astype("float32")
    return x, (x[:, :5].sum(axis=1) > 0).astype("int64")


def _train_keras(x: Any, y: Any) -> float:
    library: Any = import_module("keras")
    model = library.Sequential(
        [library.Input((COLUMNS,)), library.layers.Dense(8, "relu"), library.layers.Dense(1, "sigmoid")]
    )
    model.compile("adam", "binary_crossentropy")
    return float(model.fit(x, y, batch_size=100, epochs=2, verbose=0).history["loss"][-1])


def _train_torch(model: Any, predict: Any, batches: Any) -> float:
    """Train on batches of inputs and labels; on the GPU if there is one."""
    torch: Any = import_module("torch")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    optimizer = torch.optim.Adam(model.parameters())
    loss: Any = None
    for inputs, labels in batches:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(predict(model, inputs.to(device)), labels.to(device))
        loss.backward()
        optimizer.step()
    return float(loss.item())
