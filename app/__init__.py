"""A Flower / TensorFlow app: Flower's quickstart, with fast training, seeded partitions and a choice of strategies."""

import os

# Keras and TensorFlow read these once, when they are imported.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
