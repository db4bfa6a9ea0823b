"""The `.lobit` file: a safetensors file whose metadata holds the graph, its version and a digest of everything.

Layout: 8 bytes header length (little-endian), the header (JSON padded with spaces so that data starts at a multiple of 64), then the payloads, each
zero-padded to a multiple of 64 bytes. A file is data and untrusted: every size is checked before it is used, the header has one canonical
spelling, and the digest covers all of it. The digest finds damage; it is no signature.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lobit.atomic import atomic_file
from lobit.errors import ExportError, FormatError
from lobit.format.check import check_graph
from lobit.format.graph import Constant, Graph
from lobit.format.packing import WORD, check_tail, packed_shape
from lobit.format.table import MAX_CONSTANTS, kind_of
from lobit.format.text import graph_from_text, graph_to_text

VERSION = 1
ALIGN = 64
MAX_HEADER = 1 << 24
MAX_FILE = 1 << 32
DTYPES: dict[str, tuple[str, np.dtype[Any]]] = {
    "codes": ("U8", np.dtype("u1")),
    "f32": ("F32", np.dtype("<f4")),
    "i32": ("I32", np.dtype("<i4")),
}


def write_file(path: str | os.PathLike[str], graph: Graph) -> int:
    """Write a graph, whole or not at all.

    Parameters
    ----------
    path : path-like
        The target; an existing file is replaced in one step.
    graph : Graph
        Is checked first (`FormatError`).

    Returns
    -------
    int
        Bytes of the file.

    Raises
    ------
    ExportError
        When the file system refuses: a missing or read-only folder, a full disk.
    """
    data = file_bytes(graph)
    put_in_place(path, data)
    return len(data)


def put_in_place(path: str | os.PathLike[str], data: bytes) -> None:
    """Write bytes to a file, whole or not at all.

    Parameters
    ----------
    path : path-like
        The target.
    data : bytes

    Raises
    ------
    ExportError
        When the path names no file, or something that is not a regular one, or when the file system refuses.
    """
    check_target(path)
    try:
        with atomic_file(path) as stream:
            stream.write(data)
    except OSError as error:
        raise ExportError(
            f"cannot write {os.fspath(path)!r}: {error.strerror or error}; nothing was written. Choose a writable folder with enough space"
        ) from error


def check_target(path: str | os.PathLike[str]) -> None:
    """Refuse a path that no file can be written to, before any work.

    Raises
    ------
    ExportError
        When it names no file, its folder does not exist, or something other than a regular file stands there.
    """
    try:
        target = Path(path)
        if "\0" in str(target):
            raise ValueError("embedded null byte")
        if not target.name:
            raise ExportError(f"{os.fspath(path)!r} names no file; give one such as 'net.lobit'")
        if not target.parent.is_dir():
            raise ExportError(f"the folder {str(target.parent)!r} does not exist; create it or choose another")
        if target.exists() and not target.is_file():
            raise ExportError(f"{str(target)!r} exists and is no regular file; choose another name")
    except OSError as error:
        raise ExportError(f"cannot write {str(path)!r}: {error.strerror or error}; choose another path") from error
    except (TypeError, ValueError) as error:
        raise ExportError(f"{path!r} is no path of a file: {error}") from None


def file_bytes(graph: Graph) -> bytes:
    """The bytes of the file of a graph; equal graphs give equal bytes."""
    graph = check_graph(graph)
    payloads = {name: _payload(graph.constants[name]) for name in sorted(graph.constants)}
    entries, offset = {}, 0
    for name, payload in payloads.items():
        dtype, item = DTYPES[kind_of(graph.constants[name])]
        entries[name] = {"dtype": dtype, "shape": [len(payload) // item.itemsize], "data_offsets": [offset, offset + len(payload)]}
        offset += len(payload)
    body = b"".join(payloads.values())
    text = graph_to_text(graph)
    metadata = {"format": "lobit", "version": str(VERSION), "graph": text, "digest": _digest(text, entries, body)}
    header = _spell({"__metadata__": metadata, **entries})
    return len(header).to_bytes(8, "little") + header + body


def read_file(path: str | os.PathLike[str]) -> Graph:
    """Read and check a file.

    Raises
    ------
    FormatError
        When the file is missing, truncated, damaged, foreign, newer than this version or beyond a limit; the message says what and where.
    """
    try:
        with open(os.fspath(path), "rb", opener=_open_at_once) as stream:  # Path.open takes no opener
            info = os.fstat(stream.fileno())
            if not stat.S_ISREG(info.st_mode):
                raise FormatError("it is not a regular file; give the path of a .lobit file")
            return _read(stream, info.st_size)
    except FormatError as error:
        raise FormatError(f"{os.fspath(path)!r}: {error}") from None
    except OSError as error:
        raise FormatError(f"cannot read {os.fspath(path)!r}: {error.strerror or error}; check the path") from error
    except MemoryError:
        raise FormatError(f"{os.fspath(path)!r}: there is not enough memory to read it; free some") from None
    except (TypeError, ValueError) as error:
        raise FormatError(f"{path!r} is no path of a file: {error}") from None


def _open_at_once(path: str, flags: int) -> int:
    """Open without waiting for the other end of a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def read_bytes(data: bytes) -> Graph:
    """Read and check the bytes of a file; see `read_file`."""
    return _read(io.BytesIO(data), len(data))


def _read(stream: BinaryIO, size: int) -> Graph:
    if not 8 < size <= MAX_FILE:
        raise FormatError(f"no .lobit file: it has {size} bytes, allowed are 9 to {MAX_FILE}")
    length = int.from_bytes(stream.read(8), "little")
    if length > MAX_HEADER or (8 + length) % ALIGN:
        raise FormatError(
            f"no .lobit file: it claims a header of {length} bytes; headers end at a multiple of {ALIGN} and have at most {MAX_HEADER}"
        )
    if 8 + length > size:
        raise FormatError(f"truncated: the header has {length} bytes, the file {size}")
    raw = stream.read(length)
    metadata, entries = _parse_header(raw)
    _check_layout(entries, size - 8 - length)
    body = stream.read(size - 8 - length)
    if len(body) != size - 8 - length:
        raise FormatError("truncated: the file shrank while it was read")
    if metadata["digest"] != _digest(metadata["graph"], entries, body):
        raise FormatError("damaged: its contents do not have the digest that the header states; export or copy it again")
    if raw != _spell({"__metadata__": metadata, **entries}):
        raise FormatError("damaged: the header is not in its canonical spelling; export or copy it again")
    draft, claims = graph_from_text(metadata["graph"])
    if set(claims) != set(entries):
        raise FormatError(f"graph and payloads name different tensors: {sorted(set(claims) ^ set(entries))[:3]}")
    constants = {name: _constant(name, claims[name], entries[name], body) for name in sorted(entries)}
    return check_graph(Graph(draft.inputs, draft.nodes, draft.outputs, constants, meta=draft.meta))


def _parse_header(raw: bytes) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"no .lobit file: its header is not JSON ({error})") from None
    metadata = header.pop("__metadata__", None) if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or metadata.get("format") != "lobit":
        raise FormatError("no .lobit file: a safetensors file of another program has no lobit graph in its metadata")
    version = metadata.get("version")
    if not (isinstance(version, str) and version.isascii() and version.isdigit() and len(version) < 6):
        raise FormatError(f"its version is {str(version)[:20]!r}, not a number")
    if int(version) != VERSION:
        newer = (
            "it was written by a newer lobit; upgrade with pip install -U lobit"
            if int(version) > VERSION
            else "no such version was ever written"
        )
        raise FormatError(f"file version {version}, this lobit reads version {VERSION}: {newer}")
    if set(metadata) != {"format", "version", "graph", "digest"} or not all(isinstance(text, str) for text in metadata.values()):
        raise FormatError("its metadata must hold format, version, graph and digest, all of them text")
    if len(header) > MAX_CONSTANTS:
        raise FormatError(f"it holds {len(header)} tensors; the limit is {MAX_CONSTANTS}")
    return metadata, header


def _check_layout(entries: Mapping[str, Any], size: int) -> None:
    """Payloads stand one after another in the order of their entries, without a gap, and fill the file."""
    items = {dtype: item.itemsize for dtype, item in DTYPES.values()}
    offset = 0
    for name, entry in entries.items():
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"} or entry["dtype"] not in list(items):
            raise FormatError(f"tensor {name[:80]!r}: needs a dtype of {', '.join(items)}, a shape and data_offsets")
        shape, offsets = entry["shape"], entry["data_offsets"]
        if not (
            isinstance(shape, list)
            and len(shape) == 1
            and _counts(shape)
            and isinstance(offsets, list)
            and len(offsets) == 2
            and _counts(offsets)
        ):
            raise FormatError(
                f"tensor {name[:80]!r}: shape must be one count and data_offsets two, not {str(shape)[:40]} and {str(offsets)[:40]}"
            )
        end = offset + shape[0] * items[entry["dtype"]]
        if offsets != [offset, end] or end % ALIGN or end > size:
            raise FormatError(
                f"tensor {name[:80]!r}: bytes {offsets} must be {[offset, end]}, a multiple of {ALIGN} within the {size} bytes of data; truncated or damaged"
            )
        offset = end
    if offset != size:
        raise FormatError(f"{size} bytes of data, but the tensors take {offset}; truncated or damaged")


def _counts(numbers: list[Any]) -> bool:
    return all(type(n) is int and 0 <= n <= MAX_FILE for n in numbers)


def _constant(name: str, claim: Any, entry: Mapping[str, Any], body: bytes) -> Constant:
    shape, code = claim
    kind = "codes" if code is not None else {"F32": "f32", "I32": "i32"}.get(entry["dtype"])
    if kind is None or DTYPES[kind][0] != entry["dtype"]:
        raise FormatError(f"tensor {name!r}: dtype {entry['dtype']} cannot hold {code or 'plain numbers'}")
    item = WORD if kind == "codes" else DTYPES[kind][1]
    stored = packed_shape(shape, code) if code is not None else shape
    used = math.prod(stored) * item.itemsize
    start, end = entry["data_offsets"]
    if end - start != used + -used % ALIGN:
        raise FormatError(f"tensor {name!r}: shape {shape} needs {used} bytes and padding to {ALIGN}; the file has {end - start}")
    if any(body[start + used : end]):
        raise FormatError(f"tensor {name!r}: its padding is not zero; the file is damaged")
    data: NDArray[Any] = np.frombuffer(body, item, math.prod(stored), start).reshape(stored)
    constant = Constant(shape, data, code)
    if code is not None:
        check_tail(data, math.prod(shape[1:]), name)
        if code.alphabet.value in ("ternary", "log2"):
            constant.codes()  # refuses fields that these alphabets do not use
    return constant


def _payload(constant: Constant) -> bytes:
    item = WORD if constant.code is not None else DTYPES[kind_of(constant)][1]
    data = np.ascontiguousarray(constant.data, item).tobytes()
    return data + bytes(-len(data) % ALIGN)


def _digest(text: str, entries: Mapping[str, Mapping[str, Any]], body: bytes) -> str:
    digest = hashlib.sha256(f"lobit {VERSION}\0".encode())
    digest.update(_compact([text, entries]))
    digest.update(body)
    return digest.hexdigest()


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True).encode()


def _spell(header: Mapping[str, Any]) -> bytes:
    """The one spelling of a header: compact JSON, then spaces up to the alignment."""
    text = _compact(header)
    return text + b" " * (-(8 + len(text)) % ALIGN)
