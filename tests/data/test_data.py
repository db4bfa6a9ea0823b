"""Data sets: the shipped digits, and the reader of MNIST's files."""

from __future__ import annotations

import gzip
import hashlib
import os

import numpy as np
import pytest

from lobit.data import load_data, mnist
from lobit.data.idx import read_idx
from lobit.errors import ConfigError

SHAPES = {
    "train-images-idx3-ubyte": (30, 4, 4),
    "train-labels-idx1-ubyte": (30,),
    "t10k-images-idx3-ubyte": (10, 4, 4),
    "t10k-labels-idx1-ubyte": (10,),
}


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()


@pytest.fixture
def tiny(monkeypatch):
    """MNIST's four files, tiny: their bytes by name, with their sums in place of the official ones."""
    rng = np.random.default_rng(0)
    raw = {name: idx(rng.integers(0, 10, shape, np.uint8)) for name, shape in SHAPES.items()}
    packed = {name: gzip.compress(data, mtime=0) for name, data in raw.items()}
    monkeypatch.setattr(mnist, "PARTS", SHAPES)
    sums = {name: (hashlib.md5(packed[name]).hexdigest(), hashlib.md5(raw[name]).hexdigest()) for name in raw}
    source = mnist.Source("mnist", "MNIST", "http://localhost:9/", sums, tuple("0123456789"))
    monkeypatch.setattr("lobit.data.MNIST", source)
    return raw, packed


@pytest.mark.parametrize("folder", ["MNIST/raw", "MNIST", "mnist", "."])
@pytest.mark.parametrize("gz", [True, False])
def test_files_are_found_packed_or_plain_in_the_usual_places(tiny, tmp_path, folder, gz):
    raw, packed = tiny
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for name in SHAPES:
        (tmp_path / folder / (f"{name}.gz" if gz else name)).write_bytes(packed[name] if gz else raw[name])
    data = load_data("mnist", tmp_path)
    assert data.train_images.shape == (30, 1, 4, 4)
    assert data.test_labels.dtype == np.int64
    assert data.train_images.tobytes() == raw["train-images-idx3-ubyte"][16:]


@pytest.mark.parametrize(
    ("damage", "message"),
    [(lambda b: b[:-1], "fewer"), (lambda b: b + b"x", "more"), (lambda b: b[:4] + b"\1" + b[5:], "idx"), (lambda b: b"", "idx")],
)
def test_damaged_plain_files_are_refused(tmp_path, damage, message):
    path = tmp_path / "images"
    path.write_bytes(damage(idx(np.zeros((3, 4, 4), np.uint8))))
    with pytest.raises(ConfigError, match=message):
        read_idx(path, (3, 4, 4))


def test_a_damaged_gz_names_its_sum(tiny, tmp_path):
    _, packed = tiny
    for name, data in packed.items():
        (tmp_path / f"{name}.gz").write_bytes(data)
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(packed["t10k-images-idx3-ubyte"][:-9])
    with pytest.raises(ConfigError, match=r"t10k-images.*MD5.*damaged"):
        load_data("mnist", tmp_path)


def test_a_plain_file_that_is_not_the_official_one_names_its_sum(tiny, tmp_path):
    raw, _ = tiny
    for name, data in raw.items():
        (tmp_path / name).write_bytes(data)
    labels = raw["t10k-labels-idx1-ubyte"]
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(labels[:-1] + bytes([77]))  # the right size, one label out of range
    with pytest.raises(ConfigError, match=r"t10k-labels-idx1-ubyte has MD5"):
        load_data("mnist", tmp_path)


def test_without_files_and_network_the_error_says_what_to_put_where(tiny, tmp_path):
    with pytest.raises(ConfigError) as error:
        load_data("mnist", tmp_path)
    assert all(f"{name}.gz  MD5" in str(error.value) for name in SHAPES)
    assert str(tmp_path / "MNIST" / "raw") in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_unknown_names_and_folders():
    with pytest.raises(ConfigError, match="digits"):
        load_data("minst")
    with pytest.raises(ConfigError, match="does not exist"):
        load_data("mnist", "/nowhere/at/all")


def test_digits_are_split_the_same_way_every_time_and_scaled_by_a_table():
    data = load_data("digits")
    assert len(data.train_labels) == 1437
    assert np.bincount(data.test_labels).tolist() == [36] * 10
    assert hashlib.sha256(data.test_images.tobytes()).hexdigest() == hashlib.sha256(load_data("digits").test_images.tobytes()).hexdigest()
    scaled = data.scale(data.test_images, -1.0, 1.0)
    assert scaled.dtype == np.float32
    np.testing.assert_array_equal(scaled, (data.test_images.astype(np.float64) / 8 - 1).astype(np.float32))


@pytest.mark.hardware
@pytest.mark.skipif(not os.environ.get("LOBIT_DATA"), reason="LOBIT_DATA does not name a folder with the official files")
@pytest.mark.parametrize(
    ("name", "counts"), [("mnist", [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]), ("fashion-mnist", [1000] * 10)]
)
def test_the_official_files(name, counts):
    data = load_data(name)
    assert data.train_images.shape == (60000, 1, 28, 28)
    assert np.bincount(data.test_labels).tolist() == counts
