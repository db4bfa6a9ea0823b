"""Texts as word numbers, and the streams they are cut into."""

from __future__ import annotations

import hashlib
import lzma
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lobit.data import load_ptb, streams, text, text_of
from lobit.errors import ConfigError, ShapeError

CORPUS = {"train": "the cat sat\nthe <unk> sat\n", "valid": "the dog\n", "test": "a cat\n"}


def write(folder, monkeypatch, pack=()):
    (folder / "ptb").mkdir()
    for part, words in CORPUS.items():
        path = folder / "ptb" / f"ptb.{part}.txt"
        if part in pack:
            path.with_suffix(".txt.xz").write_bytes(lzma.compress(words.encode()))
        else:
            path.write_text(words)
    monkeypatch.setattr(text, "PARTS", {part: hashlib.md5(words.encode()).hexdigest() for part, words in CORPUS.items()})


def test_words_are_numbered_by_frequency_and_lines_end(tmp_path, monkeypatch):
    write(tmp_path, monkeypatch, pack=("train",))
    found = load_ptb(tmp_path)
    assert found.words == ("<eos>", "sat", "the", "cat", "<unk>")
    assert [found.words[number] for number in found.train] == ["the", "cat", "sat", "<eos>", "the", "<unk>", "sat", "<eos>"]
    assert [found.words[number] for number in found.valid] == ["the", "<unk>", "<eos>"]
    monkeypatch.setenv("LOBIT_DATA", str(tmp_path))
    assert np.array_equal(load_ptb().test, found.test)


def test_missing_damaged_and_foreign_files_are_named(tmp_path, monkeypatch):
    monkeypatch.delenv("LOBIT_DATA", raising=False)
    with pytest.raises(ConfigError, match="LOBIT_DATA"):
        load_ptb()
    with pytest.raises(ConfigError, match=r"ptb\.train\.txt is missing"):
        load_ptb(tmp_path)
    write(tmp_path, monkeypatch, pack=("valid",))
    (tmp_path / "ptb" / "ptb.valid.txt.xz").write_bytes(b"no archive")
    with pytest.raises(ConfigError, match=r"cannot read .*valid"):
        load_ptb(tmp_path)
    (tmp_path / "ptb" / "ptb.valid.txt").write_text("another text\n")
    with pytest.raises(ConfigError, match="another preprocessing"):
        load_ptb(tmp_path)
    with pytest.raises(ConfigError, match="neither 'b' nor <unk>"):
        text_of("t", "a\n", "b\n", "a\n")


@given(words=st.integers(2, 60), batch=st.integers(1, 7), steps=st.integers(1, 9))
def test_streams_hold_every_word_in_order_and_the_next_one(words, batch, steps):
    ids = np.arange(words)
    if words // batch < 2:
        with pytest.raises(ShapeError, match=f"{batch} streams"):
            list(streams(ids, batch, steps))
        return
    pieces = list(streams(ids, batch, steps))
    length = words // batch
    assert all(len(x) <= steps and x.shape == y.shape == (len(x), batch) and np.array_equal(y, x + 1) for x, y in pieces)
    joined = np.concatenate([x for x, _ in pieces])
    for stream in range(batch):
        assert joined[:, stream].tolist() == list(range(stream * length, (stream + 1) * length - 1))


FOLDER = os.environ.get("LOBIT_DATA")


@pytest.mark.skipif(not FOLDER or not (Path(FOLDER) / "ptb").is_dir(), reason="LOBIT_DATA names no folder with ptb/")
def test_penn_treebank_is_as_published():
    ptb = load_ptb()
    assert (len(ptb.words), len(ptb.train), len(ptb.valid), len(ptb.test)) == (10000, 929589, 73760, 82430)
    assert ptb.words[0] == "the"
    assert ptb.words[-1] == "<unk>"
    assert ptb.words[int(ptb.test[3])]
