from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.label_counts import plot_label_counts


@pytest.mark.parametrize("counts", [{}, {3: [1] * 10}, {k: [k % 7] * 10 for k in range(100)}])
def test_a_picture_is_written_for_any_number_of_nodes(tmp_path: Path, counts: dict[int, list[int]]) -> None:
    plot_label_counts(counts, str(tmp_path / "counts.png"))
    with Image.open(tmp_path / "counts.png") as picture:
        assert picture.width >= 1000


def test_the_bars_have_the_nodes_classes_only(tmp_path: Path) -> None:
    blue, orange = (31, 119, 180), (255, 127, 14)  # of the classes 0 and 1
    for counts, expected in (({0: [5] + [0] * 9}, (True, False)), ({0: [0, 5] + [0] * 8}, (False, True))):
        plot_label_counts(counts, str(tmp_path / "counts.png"))
        pixels = np.asarray(Image.open(tmp_path / "counts.png").convert("RGB"))[:, :900]  # without the legend
        assert tuple(bool((pixels == color).all(axis=2).any()) for color in (blue, orange)) == expected
