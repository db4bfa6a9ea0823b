"""Mutations of a `.lobit` file: raw bytes, and structures signed again so that the checks behind the digest are reached."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

from tests.format.resign import parts, signed

NUMBERS = (-1, 0, 1, 2, 3, 7, 63, 64, 65, 255, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32, 2**53, 2**63, 2**64, -(2**63), 0.5, 1e300)
ODDITIES: tuple[Any, ...] = (
    None,
    True,
    False,
    "",
    "x",
    "odd1",
    "unsigned8",
    "log24",
    "a\u0000b",
    "\ud800",
    [],
    {},
    [[]],
    [1, 1],
    {"a": 1},
    ["add", "k"],
)
EXTREMES = (b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\xff\xff\x7f\x7f", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\1\0\0\0", b"\xff" * 4, bytes(4))
Path = tuple[str | int, ...]


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One mutant of a valid file."""
    mutant = rng.choice((_raw, _raw, _header, _graph, _graph, _graph, _payload, _payload))(data, rng)
    return mutant if rng.random() < 0.8 else mutate_again(mutant, rng)


def mutate_again(data: bytes, rng: random.Random) -> bytes:
    """A second mutation, where the first left a header that can still be taken apart."""
    try:
        return rng.choice((_header, _graph, _payload))(data, rng)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return _raw(data, rng)


def _raw(data: bytes, rng: random.Random) -> bytes:
    mutant = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(mutant) + 1) if rng.random() < 0.7 else rng.randrange(min(len(mutant), 16) + 1)
        match rng.randrange(5):
            case 0:
                del mutant[at:]
            case 1:
                mutant[at : at + rng.randrange(1, 65)] = b""
            case 2:
                mutant[at:at] = rng.randbytes(rng.randrange(1, 65))
            case _ if at < len(mutant):
                mutant[at] ^= 1 << rng.randrange(8)
    return bytes(mutant)


def _header(data: bytes, rng: random.Random) -> bytes:
    header, body = parts(data)
    if rng.random() < 0.2:
        return signed({**header, "__metadata__": _tree(header["__metadata__"], rng)}, body)
    return signed(_tree(header, rng), body)


def _graph(data: bytes, rng: random.Random) -> bytes:
    header, body = parts(data)
    graph = json.loads(header["__metadata__"]["graph"])
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        graph = _tree(graph, rng)
    header["__metadata__"]["graph"] = json.dumps(graph, separators=(",", ":"))
    return signed(header, body)


def _payload(data: bytes, rng: random.Random) -> bytes:
    """Other values inside the tensors: codes lose bits, which keeps tails and padding zero; numbers become extreme or not finite."""
    header, body = parts(data)
    mutant = bytearray(body)
    entry = rng.choice([entry for name, entry in header.items() if name != "__metadata__"])
    start, end = entry["data_offsets"]
    for _ in range(rng.choice((1, 4, 64))):
        at = rng.randrange(start, end) if rng.random() < 0.9 else rng.randrange(len(mutant))
        if entry["dtype"] == "U8":
            mutant[at] &= rng.randrange(256)
        else:
            at -= at % 4
            mutant[at : at + 4] = rng.choice((rng.randbytes(4), *EXTREMES)) if any(mutant[at : at + 4]) else bytes(4)
    return signed(header, bytes(mutant))


def _tree(tree: Any, rng: random.Random) -> Any:
    """A copy of a JSON value with one change somewhere inside it."""
    tree = json.loads(json.dumps(tree))
    paths = list(_paths(tree, ()))
    if not paths:
        return rng.choice(ODDITIES)
    *way, last = rng.choice(paths)
    parent = tree
    for key in way:
        parent = parent[key]
    donor = copy.deepcopy(_at(tree, rng.choice(paths)))
    change: Callable[[], Any] = rng.choice(
        (lambda: rng.choice(NUMBERS), lambda: rng.choice(ODDITIES), lambda: donor, lambda: _near(parent[last], rng))
    )
    match rng.randrange(6):
        case 0 if isinstance(parent, list):
            del parent[last]
        case 1 if isinstance(parent, list):
            parent.insert(last, donor)
        case 0 if isinstance(parent, dict):
            del parent[last]
        case 1 if isinstance(parent, dict):
            parent[rng.choice(("extra", "weight", "zero", "code", str(last) + "x"))] = parent.pop(last)
        case _:
            parent[last] = change()
    return tree


def _near(value: Any, rng: random.Random) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return value + rng.choice((-1, 1, 64, -64)) if rng.random() < 0.7 else value * rng.choice((2, -1, 1000))
    if isinstance(value, str):
        return rng.choice((value[:-1], value + "1", value.upper(), value * 300))
    return [value]


def _paths(tree: Any, path: Path) -> Iterator[Path]:
    items: Any = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from _paths(value, (*path, key))


def _at(tree: Any, path: Path) -> Any:
    for key in path:
        tree = tree[key]
    return tree
