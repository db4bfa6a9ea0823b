"""YAML as data: nothing in it is run, and a field that stands twice is refused."""

from __future__ import annotations

from typing import Any

from lobit.errors import ConfigError
from lobit.extras import require

MAX_BYTES = 1 << 20
"""Recipes and policies are short; a larger file is no such file."""


def parse_yaml(what: str, raw: bytes) -> Any:
    """What a YAML text holds.

    Raises
    ------
    ConfigError
        When it is none; ``what`` names it, such as ``"recipe 'x'"``.
    """
    require(what, "yaml")
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            fields = super().construct_mapping(node, deep)
            if len(fields) < len(node.value) and not any(key.tag.endswith(":merge") for key, _ in node.value):
                raise yaml.YAMLError(f"a field stands twice{node.start_mark}")
            return fields

    try:
        return yaml.load(raw, Loader)  # a safe loader
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{what} is not YAML: {error}") from None
