"""What TensorFlow computes on: the GPU that this node was given, within its limit, or the CPU.

Whoever starts the node says so by two variables beside CUDA_VISIBLE_DEVICES: ``BOUQUET_GPU`` names the GPU, and
``BOUQUET_GPU_MEMORY_MIB`` is what TensorFlow may allocate of it in each process. Neither set: TensorFlow's own choice.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from logging import INFO
from typing import Any

import tensorflow as tf
from flwr.common.logger import log

from app.errors import SettingError

GPU = "BOUQUET_GPU"
LIMIT = "BOUQUET_GPU_MEMORY_MIB"


@cache
def device() -> str:
    """Keep this process within its limit, and return what it computes on; call it before TensorFlow's first operation.

    Raises:
        SettingError: The node was given a GPU that TensorFlow does not see, or the limit is no number.
    """
    name = prepare(tf.config, os.environ)
    log(INFO, "Computing on %s", name)
    return name


def prepare(config: Any, environ: Mapping[str, str]) -> str:
    """Do what `device` does, on a given `tf.config`."""
    given, limit = environ.get(GPU, ""), environ.get(LIMIT, "")
    gpus = config.list_physical_devices("GPU")
    if not gpus:
        if given:
            problem = "this node was given a GPU that TensorFlow does not see"
            raise SettingError(GPU, given, problem, "build with TENSORFLOW=cuda, or compute on the CPU: GPUS=none")
        return "CPU"
    name = str(config.experimental.get_device_details(gpus[0]).get("device_name", "GPU"))
    if given and name not in given:
        name = f"{name}, {given}"
    elif given:
        name = given
    if not limit:
        return name
    if not limit.isascii() or not limit.isdigit() or int(limit) < 1:
        raise SettingError(LIMIT, limit, "must be a whole number of MiB over 0", f"give e.g. {LIMIT}=2048")
    config.set_logical_device_configuration(gpus[0], [config.LogicalDeviceConfiguration(memory_limit=int(limit))])
    return f"{name}, at most {limit} MiB"
