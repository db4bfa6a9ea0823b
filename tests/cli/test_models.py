from __future__ import annotations

import json

from lobit.cli.app import run
from lobit.models import list_models


def test_models_are_listed_by_pattern(capsys):
    assert run(["models", "cifar10-conv*"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[1].split() == ["cifar10-convnet", "3x32x32", "10", "14.02", "M", "617.0", "M"]
    assert max(map(len, out.splitlines())) <= 80


def test_json_is_one_value_and_nothing_else(capsys):
    assert run(["models", "--json"]) == 0
    captured = capsys.readouterr()
    assert [row["name"] for row in json.loads(captured.out)] == sorted(list_models() + list_models(kind="words"))
    assert captured.err == ""
