from __future__ import annotations

import errno
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from lobit.errors import ExportError, FormatError
from lobit.format import Graph, file_bytes, read_file, write_file
from lobit.format.file import ALIGN, MAX_FILE
from tests.format.resign import parts, signed
from tests.format.samples import SAMPLES, mlp


@pytest.fixture(params=sorted(SAMPLES))
def sample(request: pytest.FixtureRequest) -> Graph:
    return SAMPLES[request.param]()


def read_bytes(folder: Path, data: bytes) -> Graph:
    path = folder / "net.lobit"
    path.write_bytes(data)
    return read_file(path)


def test_a_graph_survives_the_file(sample: Graph, tmp_path: Path) -> None:
    size = write_file(tmp_path / "net.lobit", sample)
    assert size == (tmp_path / "net.lobit").stat().st_size
    back = read_file(tmp_path / "net.lobit")
    assert dict(back.inputs) == dict(sample.inputs)
    assert back.outputs == sample.outputs
    assert dict(back.types) == dict(sample.types)
    assert dict(back.meta) == dict(sample.meta)
    assert [(n.op, n.name, n.inputs, n.output, dict(n.constants)) for n in back.nodes] == [
        (n.op, n.name, n.inputs, n.output, dict(n.constants)) for n in sample.nodes
    ]
    assert set(back.constants) == set(sample.constants)
    for name, constant in sample.constants.items():
        assert back.constants[name].code == constant.code
        assert back.constants[name].shape == constant.shape
        np.testing.assert_array_equal(back.constants[name].data, constant.data)
    assert file_bytes(back) == file_bytes(sample)


def test_equal_graphs_give_equal_bytes(sample: Graph) -> None:
    reordered = Graph(sample.inputs, sample.nodes, sample.outputs, dict(reversed(sample.constants.items())), meta=sample.meta)
    assert file_bytes(reordered) == file_bytes(sample)


def test_the_file_is_safetensors(sample: Graph, tmp_path: Path) -> None:
    path = tmp_path / "net.lobit"
    write_file(path, sample)
    with safe_open(path, "numpy") as stored:
        assert set(stored.keys()) == set(sample.constants)
        assert stored.metadata()["format"] == "lobit"
        assert stored.metadata()["version"] == "1"
        for name, constant in sample.constants.items():
            raw = stored.get_tensor(name).tobytes()
            used = constant.data.tobytes()
            assert raw[: len(used)] == used
            assert not any(raw[len(used) :])


def test_data_and_every_payload_start_at_a_multiple_of_64(sample: Graph) -> None:
    data = file_bytes(sample)
    header, body = parts(data)
    assert (len(data) - len(body)) % ALIGN == 0
    assert len(body) % ALIGN == 0
    for name, entry in header.items():
        if name != "__metadata__":
            assert entry["data_offsets"][0] % ALIGN == 0


def test_resigning_an_unchanged_file_changes_nothing(sample: Graph) -> None:
    data = file_bytes(sample)
    assert signed(*parts(data)) == data


def test_every_truncation_is_refused(sample: Graph, tmp_path: Path) -> None:
    data = file_bytes(sample)
    for size in {*range(80), *range(80, len(data), 61), *range(len(data) - 70, len(data))}:
        with pytest.raises(FormatError):
            read_bytes(tmp_path, data[:size])


def test_every_flipped_bit_is_refused(sample: Graph, tmp_path: Path) -> None:
    data = file_bytes(sample)
    rng = np.random.default_rng(3)
    for position in {*range(80), *rng.integers(0, len(data), 400).tolist()}:
        damaged = bytearray(data)
        damaged[position] ^= 1 << int(rng.integers(8))
        with pytest.raises(FormatError):
            read_bytes(tmp_path, bytes(damaged))


def test_appended_bytes_are_refused(sample: Graph, tmp_path: Path) -> None:
    for tail in (b"\0", bytes(64), b"PK"):
        with pytest.raises(FormatError):
            read_bytes(tmp_path, file_bytes(sample) + tail)


def test_another_spelling_of_the_header_is_refused(tmp_path: Path) -> None:
    header, body = parts(file_bytes(mlp()))
    text = json.dumps(header, separators=(", ", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGN)
    with pytest.raises(FormatError, match="canonical"):
        read_bytes(tmp_path, len(text).to_bytes(8, "little") + text + body)


def test_a_newer_version_says_how_to_upgrade(tmp_path: Path) -> None:
    header, body = parts(file_bytes(mlp()))
    header["__metadata__"]["version"] = "2"
    with pytest.raises(FormatError, match="newer lobit; upgrade with pip"):
        read_bytes(tmp_path, signed(header, body))


@pytest.mark.parametrize("version", ["0", "-1", "1.0", "one", "", "9" * 5000, "²", 1, None])
def test_a_version_that_never_was_is_refused(version: Any, tmp_path: Path) -> None:
    header, body = parts(file_bytes(mlp()))
    header["__metadata__"]["version"] = version
    with pytest.raises(FormatError):
        read_bytes(tmp_path, signed(header, body))


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 8, b"\0" * 64, b"\x7fELF" * 64, b"PK\x03\x04" + bytes(500), b"{}", bytes([56]) + bytes(7) + b"[" * 56, b"\xff" * 4096],
    ids=["empty", "eight", "zeros", "elf", "zip", "json", "nested", "ones"],
)
def test_a_foreign_file_is_refused(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"no \.lobit file|truncated"):
        read_bytes(tmp_path, data)


def test_a_foreign_safetensors_file_is_named_as_such(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    for metadata in (None, {"format": "pt"}):
        save_file({"weight": np.ones((2, 8), np.float32)}, tmp_path / "net.lobit", metadata)
        with pytest.raises(FormatError, match="no .lobit file"):
            read_file(tmp_path / "net.lobit")


def test_a_deeply_nested_header_is_refused(tmp_path: Path) -> None:
    for text in (b"[" * 100_000, b'{"a":' * 100_000):
        text += b" " * (-(8 + len(text)) % ALIGN)
        with pytest.raises(FormatError):
            read_bytes(tmp_path, len(text).to_bytes(8, "little") + text)


def claim(header: dict[str, Any], **change: Any) -> None:
    header[sorted(set(header) - {"__metadata__"})[0]].update(change)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [2**60]}, {"shape": [2**32]}, {"shape": [-16]}, {"shape": [1.0]}, {"shape": [True]}, {"shape": []}, {"shape": [4, 4]}, {"shape": "16"},
        {"data_offsets": [0, 2**62]}, {"data_offsets": [0, 0]}, {"data_offsets": [64, 128]}, {"data_offsets": [-64, 0]}, {"data_offsets": [0]},
        {"dtype": "F64"}, {"dtype": "BOOL"}, {"dtype": None}, {"dtype": ["F32"]}, {"extra": 1},
        {"shape": [2**60], "data_offsets": [0, 2**62]}, {"shape": [2**30], "data_offsets": [0, 2**32]}, {"shape": [0], "data_offsets": [0, 0]},
    ],
    ids=str,
)  # fmt: skip
def test_a_false_claim_about_a_tensor_is_refused_without_allocating_for_it(change: dict[str, Any], tmp_path: Path) -> None:
    header, body = parts(file_bytes(mlp()))
    claim(header, **change)
    assert_refused_cheaply(tmp_path, signed(header, body))


@pytest.mark.parametrize("length", [2**24 + 56, 2**31, 2**63, 2**64 - 8, 56 + 64 * 1000])
def test_a_false_claim_about_the_header_is_refused_without_allocating_for_it(length: int, tmp_path: Path) -> None:
    assert_refused_cheaply(tmp_path, length.to_bytes(8, "little") + file_bytes(mlp())[8:])


def test_a_file_beyond_the_limit_is_refused_without_reading_it(tmp_path: Path) -> None:
    with (tmp_path / "net.lobit").open("wb") as stream:
        stream.truncate(MAX_FILE + 64)  # sparse
    assert_refused_cheaply(tmp_path, None)


@pytest.mark.parametrize(
    "shape", [[2**30, 2**30], [70, 2**31], [2**20] * 5, [0, 13], [70], [70, 13, 1, 1, 1, 1], [70.0, 13], [[70], 13], None]
)
def test_a_false_claim_of_the_graph_is_refused_without_allocating_for_it(shape: Any, tmp_path: Path) -> None:
    header, body = parts(file_bytes(mlp()))
    graph = json.loads(header["__metadata__"]["graph"])
    graph["constants"]["fc1.weight"]["shape"] = shape
    header["__metadata__"]["graph"] = json.dumps(graph, separators=(",", ":"))
    assert_refused_cheaply(tmp_path, signed(header, body))


def assert_refused_cheaply(folder: Path, data: bytes | None) -> None:
    if data is not None:
        (folder / "net.lobit").write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(FormatError):
            read_file(folder / "net.lobit")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_set_bits_in_a_tail_or_in_the_padding_are_refused_though_signed(tmp_path: Path) -> None:
    header, body = parts(file_bytes(mlp()))
    start, end = header["fc1.weight"]["data_offsets"]
    in_tail, in_padding = bytearray(body), bytearray(body)
    in_tail[start + 7] |= 0x80  # bit 63 of 13
    in_padding[header["quantize.step"]["data_offsets"][1] - 1] = 1
    assert end > start
    with pytest.raises(FormatError, match="beyond its 13 inputs"):
        read_bytes(tmp_path, signed(header, bytes(in_tail)))
    with pytest.raises(FormatError, match="padding is not zero"):
        read_bytes(tmp_path, signed(header, bytes(in_padding)))


def test_a_ternary_minus_two_is_refused_though_signed(tmp_path: Path) -> None:
    header, body = parts(file_bytes(mlp()))
    start = header["fc1.weight"]["data_offsets"][0]
    planes = bytearray(body)
    planes[start] &= 0xFE  # low plane, row 0, channel 0
    planes[start + 70 * 8] |= 1  # sign plane
    with pytest.raises(FormatError, match="ternary"):
        read_bytes(tmp_path, signed(header, bytes(planes)))


def test_an_error_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"missing\.lobit.*No such file"):
        read_file(tmp_path / "missing.lobit")
    with pytest.raises(FormatError, match=str(tmp_path)):
        read_file(tmp_path)
    (tmp_path / "short.lobit").write_bytes(b"abc")
    with pytest.raises(FormatError, match=r"short\.lobit"):
        read_file(tmp_path / "short.lobit")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="regular file"):
        read_file("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    holder = os.open(tmp_path / "pipe", os.O_RDWR)  # a writer, so that opening does not wait
    try:
        with pytest.raises(FormatError, match="regular file"):
            read_file(tmp_path / "pipe")
    finally:
        os.close(holder)


def test_a_wrong_graph_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(FormatError):
        write_file(tmp_path / "net.lobit", Graph({}, [], (), {}))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_an_export_error(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="does not exist"):
        write_file(tmp_path / "nowhere" / "net.lobit", mlp())


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_no_other(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.lobit"
    path.write_bytes(b"old")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if call == "write":

        def opened(*args: Any, **kwargs: Any) -> Any:
            return _Full(open(*args, **kwargs))

        monkeypatch.setattr("lobit.atomic.open", opened, raising=False)
    else:
        monkeypatch.setattr(os, call, full)
    with pytest.raises(ExportError, match="No space left"):
        write_file(path, mlp())
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.lobit"]


class _Full:
    """A stream on a full disk."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __enter__(self) -> _Full:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def write(self, _: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_link_is_followed_and_the_mode_kept(tmp_path: Path) -> None:
    target, link = tmp_path / "real.lobit", tmp_path / "link.lobit"
    target.write_bytes(b"old")
    target.chmod(0o640)
    link.symlink_to(target)
    write_file(link, mlp())
    assert link.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o640
    read_file(target)
