"""That an array in a file is Flower's `Array` to everyone who uses it."""

import copy
import dataclasses
import gc
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import InflatableObject, get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflatable_class_registry, inflate_object_from_contents

from bouquet.flower import array_files
from bouquet.flower.array_files import ArrayFiles, FileArray
from bouquet.flower.message_files import LARGE_BYTES

LARGE = np.random.default_rng(0).standard_normal((3, 1024, 1024), np.float32)  # 12 MiB: three chunks


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArrayFiles:
    for name in ("Array", "ArrayRecord"):
        monkeypatch.setitem(inflatable_class_registry, name, inflatable_class_registry[name])  # restored afterwards
    files = ArrayFiles(tmp_path)
    files.register()
    return files


def received(root: InflatableObject) -> Any:
    """What a ServerApp gets when a node sends `root`."""
    contents = {object_id: one.deflate() for object_id, one in get_all_nested_objects(root).items()}
    return inflate_object_from_contents(root.object_id, contents)


def open_files() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.usefixtures("files")
def test_a_large_array_takes_no_memory_and_a_small_one_does() -> None:
    record = received(ArrayRecord({"large": Array(LARGE), "small": Array(LARGE[0, :10])}))
    assert [type(record[name]) for name in ("large", "small")] == [FileArray, Array]
    record["large"].numpy()
    assert record["large"].data
    assert not any(isinstance(value, bytes) for value in vars(record["large"]).values())


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    "values",
    [LARGE, LARGE.astype(">f8"), np.asfortranarray(LARGE[0]), np.zeros((2048, 2048)), (LARGE > 0)],
    ids=["float32", "big-endian", "Fortran order", "equal chunks", "bool"],
)
def test_it_has_the_same_bytes_and_values_as_flowers(values: "np.ndarray[Any, Any]") -> None:
    sent = Array(values)
    array = received(sent)
    assert isinstance(array, FileArray)
    assert (array.dtype, array.shape, array.stype) == (sent.dtype, sent.shape, sent.stype)
    assert type(array.data) is bytes
    assert array.data == sent.data
    result = array.numpy()
    np.testing.assert_array_equal(result, values)
    assert (result.dtype, result.flags.writeable) == (sent.numpy().dtype, True)
    result.fill(0)  # is the caller's own
    np.testing.assert_array_equal(array.numpy(), values)


@pytest.mark.usefixtures("files")
def test_it_can_be_sent_on_compared_pickled_and_copied() -> None:
    sent = Array(LARGE)
    array = received(sent)
    assert array == sent
    assert sent == array
    assert array != Array(LARGE + 1)
    assert array.object_id == sent.object_id
    assert received(received(RecordDict({"a": ArrayRecord({"x": sent})}))["a"])["x"] == sent
    assert dataclasses.asdict(array) == dataclasses.asdict(sent)
    assert dataclasses.replace(array, dtype="float64").data == sent.data
    for other in (pickle.loads(pickle.dumps(array)), copy.deepcopy(array), copy.copy(array)):
        assert (type(other), other) == (Array, sent)


@pytest.mark.usefixtures("files")
def test_two_names_of_a_record_may_have_equal_arrays() -> None:
    record = received(ArrayRecord({"a": Array(LARGE), "b": Array(LARGE), "c": Array(LARGE + 1)}))
    assert list(record) == ["a", "b", "c"]
    record["a"].data = Array(LARGE * 2).data
    for name, values in (("a", LARGE * 2), ("b", LARGE), ("c", LARGE + 1)):
        np.testing.assert_array_equal(record[name].numpy(), values)


@pytest.mark.usefixtures("files")
def test_an_app_may_set_its_bytes() -> None:
    array, other = received(Array(LARGE)), Array(LARGE * 2)
    before = array.object_id
    array.data = other.data
    np.testing.assert_array_equal(array.numpy(), LARGE * 2)
    assert (array.data, array.object_id) == (other.data, other.object_id)
    assert array.object_id != before


def test_a_file_has_no_name_and_is_closed_with_its_last_array(files: ArrayFiles, tmp_path: Path) -> None:
    before = open_files()
    first, second = received(Array(LARGE)), received(Array(LARGE + 1))
    assert list(tmp_path.iterdir()) == []
    assert open_files() == before + 1
    del first
    assert open_files() == before + 1
    np.testing.assert_array_equal(second.numpy(), LARGE + 1)
    del second
    assert open_files() == before


def test_a_file_that_is_large_enough_gets_no_more_arrays(files: ArrayFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(array_files, "FILE_BYTES", LARGE_BYTES)
    before = open_files()
    arrays = [received(Array(LARGE + number)) for number in range(3)]
    assert open_files() == before + 3
    del arrays[0]
    assert open_files() == before + 2


def test_on_a_full_disk_an_array_stays_in_memory(
    files: ArrayFiles, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(descriptor: int, content: memoryview, offset: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    array = received(Array(LARGE))
    assert type(array) is Array
    np.testing.assert_array_equal(array.numpy(), LARGE)
