"""The tar file of a bundle, read by Python's own module."""

import hashlib
import io
import tarfile

from bouquet.host.bundle.tar_writer import TarWriter


def written(file: io.BytesIO) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(file.getvalue()))


def test_a_stream_of_unknown_length_becomes_a_file_with_its_length_and_checksum() -> None:
    file = io.BytesIO()
    tar = TarWriter(file, "app-1")
    tar.add("images", (bytes([part]) * 700 for part in range(3)))
    tar.add("run", b"#!/bin/sh", 0o755)
    checksums = tar.checksums()
    tar.close()
    with written(file) as found:
        images = found.extractfile("app-1/images")
        assert images is not None
        content = images.read()
        assert content == b"\x00" * 700 + b"\x01" * 700 + b"\x02" * 700
        assert found.getmember("app-1/run").mode == 0o755
    assert checksums.decode().splitlines() == [
        f"{hashlib.sha256(content).hexdigest()}  images",
        f"{hashlib.sha256(b'#!/bin/sh').hexdigest()}  run",
    ]


def test_folders_and_links_are_kept_and_long_names_too() -> None:
    file, long = io.BytesIO(), f"hf-cache/{'x' * 150}/{'y' * 150}"
    tar = TarWriter(file, "app-1")
    tar.add_folder("data")
    tar.add_link("link", "../blobs/1")
    tar.add(long, iter([b"one", b"two"]), checksum=False)
    tar.close()
    assert tar.checksums() == b""
    with written(file) as found:
        assert found.getmember("app-1/data").isdir()
        assert found.getmember("app-1/link").linkname == "../blobs/1"
        content = found.extractfile(f"app-1/{long}")
        assert content is not None
        assert content.read() == b"onetwo"
