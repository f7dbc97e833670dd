"""The device TensorFlow computes on: the GPU assigned to this node, within its memory limit, or the CPU.

Two environment variables set it, besides ``CUDA_VISIBLE_DEVICES``: ``BOUQUET_GPU`` names the assigned GPU, and
``BOUQUET_GPU_MEMORY_MIB`` is how much of its memory each process may allocate, in MiB. If neither is set, TensorFlow
chooses the device.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from logging import INFO
from typing import Any

import tensorflow as tf

from app.exceptions import SettingError
from app.run_log import log

GPU = "BOUQUET_GPU"
LIMIT = "BOUQUET_GPU_MEMORY_MIB"


@cache
def device() -> str:
    """Return the name of the device, and apply its memory limit; call this before TensorFlow's first operation.

    Raises:
        SettingError: TensorFlow does not see the assigned GPU, or the memory limit is not a whole number of at least 1.
    """
    name = prepare(tf.config, os.environ)
    log(INFO, "Computing on %s", name)
    return name


def prepare(config: Any, environ: Mapping[str, str]) -> str:
    """Return the name of the device, and apply its memory limit through `config`.

    Args:
        config: TensorFlow's `tf.config`.
        environ: The environment.

    Raises:
        SettingError: See `device`.
    """
    assigned, limit = environ.get(GPU, ""), environ.get(LIMIT, "")
    gpus = config.list_physical_devices("GPU")
    if not gpus:
        if assigned:
            problem = "TensorFlow does not see the GPU assigned to this node"
            raise SettingError(GPU, assigned, problem, "build with TENSORFLOW=cuda, or compute on the CPU: GPUS=none")
        return "CPU"
    name = str(config.experimental.get_device_details(gpus[0]).get("device_name", "GPU"))
    if assigned and name not in assigned:
        name = f"{name}, {assigned}"
    elif assigned:
        name = assigned
    if not limit:
        return name
    if not limit.isascii() or not limit.isdigit() or int(limit) < 1:
        raise SettingError(LIMIT, limit, "must be a whole number of MiB, at least 1", f"give e.g. {LIMIT}=2048")
    config.set_logical_device_configuration(gpus[0], [config.LogicalDeviceConfiguration(memory_limit=int(limit))])
    return f"{name}, at most {limit} MiB"
