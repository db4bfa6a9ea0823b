"""What a file says of its use is checked when it is written and, as it is untrusted, when it is read."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from lobit.errors import ConfigError, FormatError
from lobit.format import About, about_graph, read_file, write_file
from lobit.runtime import Session
from tests.format.samples import mlp

FULL = About("digits", -1.0, 1.0, 16, ("null", "één", "two"), "logits")


def test_what_is_written_is_read_back(tmp_path):
    write_file(tmp_path / "net.lobit", replace(mlp(), meta=FULL.meta()))
    assert about_graph(read_file(tmp_path / "net.lobit")) == FULL


def test_a_file_that_says_nothing_gives_nothing_known():
    assert about_graph(replace(mlp(), meta={})) == About()
    assert About().meta() == {}


@pytest.mark.parametrize(
    "meta",
    [
        {"classes": "no json"},
        {"classes": '{"a": 1}'},
        {"classes": "[1, 2]"},
        {"classes": json.dumps(["\x1b[31mred"])},
        {"classes": json.dumps(["a\nb"])},
        {"classes": json.dumps([""])},
        {"classes": json.dumps(["x" * 201])},
        {"classes": json.dumps(["x"] * 65537)},
        {"classes": "[" * 100_000},
        {"pixels": '{"low": 0, "high": 1}'},
        {"pixels": '{"low": 0, "high": 1, "white": 255, "more": 1}'},
        {"pixels": '{"low": 1, "high": 0, "white": 255}'},
        {"pixels": '{"low": NaN, "high": 1, "white": 255}'},
        {"pixels": '{"low": 0, "high": 1e999, "white": 255}'},
        {"pixels": '{"low": 0, "high": 1' + "0" * 400 + ', "white": 255}'},
        {"pixels": '{"low": 0, "high": 1, "white": 0}'},
        {"pixels": '{"low": 0, "high": 1, "white": 2.5}'},
        {"pixels": '{"low": false, "high": true, "white": 255}'},
        {"data": "\x07bell"},
        {"scores": "votes"},
    ],
)
def test_hostile_metadata_is_a_format_error_and_the_network_runs_all_the_same(meta):
    graph = replace(mlp(), meta=meta)
    with pytest.raises(FormatError, match="metadata"):
        about_graph(graph)
    (shape,) = graph.inputs.values()
    assert len(Session(graph)(np.zeros((1, *shape), np.float32))) == 1


@pytest.mark.parametrize(
    "wrong", [{"low": 1.0}, {"white": 70000}, {"classes": ["a"]}, {"classes": (" a",)}, {"scores": "x"}, {"high": "1"}]
)
def test_what_no_file_could_hold_is_refused_when_it_is_said(wrong):
    with pytest.raises(ConfigError):
        About(**wrong)
