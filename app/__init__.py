"""The Flower App: a Keras CNN on CIFAR-10, trained with FedAvg.

Importing any part of it sets Keras' backend and TensorFlow's log level first: both are read once, at
TensorFlow's own import. It imports neither, so that a bad run-config is refused without waiting for them.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
