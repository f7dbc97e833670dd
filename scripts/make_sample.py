"""Create the repository's sample of CIFAR-10 from a folder in the layout of `uoft-cs/cifar10`.

    python scripts/make_sample.py FOLDER [DESTINATION]

The sample has 10,000 train and 2,000 test images, the same number of each class, drawn and shuffled with a fixed seed.
Image bytes are copied unchanged, and schema and layout are the hub's, so code that reads `uoft-cs/cifar10` can read the
sample. The same folder gives the same sample.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from datasets import load_dataset

SIZES = {"train": 10_000, "test": 2_000}
SEED = 42
README = """\
---
configs:
- config_name: plain_text
  default: true
  data_files:
  - split: train
    path: plain_text/train-*
  - split: test
    path: plain_text/test-*
---
# A sample of CIFAR-10

10,000 train and 2,000 test images of CIFAR-10, as many of each class, in the layout and schema of the Hugging
Face dataset `uoft-cs/cifar10`: `img` (32x32x3 image) and `label` (`ClassLabel`, ten names). Bouquet trains on it
where the hub does not answer; accuracies on it are lower than on the whole.

- Made by `scripts/make_sample.py`, which draws it with a fixed seed from a copy of the dataset. The images are
  JPEG re-encodings (the hub's are PNG), so accuracies can differ from the hub's by a small amount.
- Origin: Alex Krizhevsky, *Learning Multiple Layers of Features from Tiny Images*, 2009;
  https://www.cs.toronto.edu/~kriz/cifar.html. CIFAR-10 is a labelled subset of the 80 million tiny images.
- Licence: CIFAR-10's authors publish it without a licence text and ask that the report above be cited; its
  images were collected from the web and belong to their owners. It is here for research and teaching, and the
  licence of Bouquet's code does not cover it.
"""


def draw(split: Any, size: int) -> Any:
    """Return `size` rows of a `datasets.Dataset`, the same number of each class, in a seeded order."""
    rng = np.random.default_rng(SEED)
    labels = np.asarray(split["label"])
    classes = np.unique(labels)
    rows = [rng.choice(np.flatnonzero(labels == each), size // len(classes), replace=False) for each in classes]
    return split.select(rng.permutation(np.concatenate(rows)))


def main() -> None:
    """Write the sample's parquet files and README."""
    parser = argparse.ArgumentParser(description="Create the repository's sample of CIFAR-10.")
    parser.add_argument("folder", type=Path, help="CIFAR-10 in the layout of uoft-cs/cifar10")
    here = Path(__file__).resolve().parents[1]
    parser.add_argument("destination", type=Path, nargs="?", default=here / "data" / "cifar10-sample")
    arguments = parser.parse_args()

    whole = load_dataset(str(arguments.folder))
    parquet = arguments.destination / "plain_text"
    parquet.mkdir(parents=True, exist_ok=True)
    for name, size in SIZES.items():
        draw(whole[name], size).to_parquet(parquet / f"{name}-00000-of-00001.parquet")
    (arguments.destination / "README.md").write_text(README)


if __name__ == "__main__":
    main()
