"""The Flower App: a Keras CNN on CIFAR-10, trained with FedAvg.

One round, file by file:

1. `server_app.py` runs in the ServerApp's process. Before round 1 it parses the run-config (`run_config.py`), chooses
   the dataset (`dataset.py`), waits for the fleet (`fleet.py`) and builds the initial model (`model.py`).
2. `strategy.py` starts the round: `participants.py` returns the run's nodes that are online, and FedAvg samples some of
   them and sends each a train message.
3. `client_app.py` runs on each sampled node. It parses the node config (`node.py`), loads the node's partition
   (`partition.py`, cached on disk by `array_cache.py`), selects the CPU or GPU (`device.py`), trains (`model.py`) and
   replies with the new weights and its metrics.
4. `strategy.py` records every reply and failure and averages the weights. The evaluate phase repeats steps 2 to 4
   without training, on the images that each node keeps back.
5. After the last round `server_app.py` saves the model, `metrics.json` and the plot (`results.py`, `plot.py`).

`exceptions.py` has every error that the app raises on purpose.

Importing this package sets Keras' backend and TensorFlow's log level, because each is read only once, when Keras or
TensorFlow is imported. The package itself imports neither, so an invalid run-config is rejected without that delay.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
