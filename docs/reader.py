"""Read a .lobit file with Python's standard library alone.

usage: python reader.py FILE
"""

import hashlib
import json
import re
import struct
import sys
from math import prod


def read(path):
    """The graph of a file as the JSON it is, and its constants by name: lists of ints or floats in the order of `shape`, C order."""
    data = open(path, "rb").read()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    body = data[8 + length :]
    metadata = header.pop("__metadata__")
    check(metadata["format"] == "lobit" and metadata["version"] == "1", "no .lobit file of version 1")
    check((8 + length) % 64 == 0 and digest(metadata["graph"], header, body) == metadata["digest"], "damaged")
    graph = json.loads(metadata["graph"])
    constants = {}
    for name, claim in graph["constants"].items():
        start, end = header[name]["data_offsets"]
        constants[name] = constant(claim, header[name]["dtype"], body[start:end])
    return graph, constants


def digest(text, entries, body):
    """SHA-256 of: "lobit 1" and a zero byte, the compact JSON of [graph text, header without __metadata__], all payloads."""
    spelled = json.dumps([text, entries], separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(b"lobit 1\0" + spelled.encode() + body).hexdigest()


def constant(claim, dtype, payload):
    """A payload without its padding: codes where the graph states a code type, else float32 or int32."""
    shape = claim["shape"]
    if "code" not in claim:
        kind = {"F32": "f", "I32": "i"}[dtype]
        check(not any(payload[4 * prod(shape) :]), "padding is not zero")
        return list(struct.unpack_from(f"<{prod(shape)}{kind}", payload))
    alphabet, bits = code_type(claim["code"])
    return [code_of(field, alphabet, bits) for field in fields(payload, shape, bits)]


def code_type(text):
    """The alphabet and the width: ("unsigned", 2) of "unsigned2", ("log2", 3) of "log23"; the last digit is the width."""
    return text[:-1], int(text[-1])


def fields(payload, shape, bits):
    """The stored fields of codes of shape (O, I, *spatial), in C order.

    Words of 64 bits, little-endian, in the order [plane][output][word]. Bit s * I + i of an output's row, counted from the low end of its
    first word, belongs to channel i at kernel position s; positions count row by row. Plane p holds bit p of every field.
    """
    outputs, channels = shape[0], shape[1]
    inputs, positions = prod(shape[1:]), prod(shape[2:])
    words = -(-inputs // 64)
    check(len(payload) >= 8 * bits * outputs * words and not any(payload[8 * bits * outputs * words :]), "padding is not zero")
    rows = [int.from_bytes(payload[8 * words * r : 8 * words * (r + 1)], "little") for r in range(bits * outputs)]
    check(not any(row >> inputs for row in rows), "bits beyond a row's inputs")
    return [
        sum((rows[plane * outputs + o] >> (s * channels + i) & 1) << plane for plane in range(bits))
        for o in range(outputs)
        for i in range(channels)
        for s in range(positions)
    ]


def code_of(field, alphabet, bits):
    """The code that a stored field of `bits` bits stands for."""
    half = 1 << (bits - 1)
    if alphabet == "unsigned":
        return field
    if alphabet == "odd":
        return 2 * field - (2 * half - 1)
    if alphabet in ("signed", "ternary"):
        check((alphabet, field) != ("ternary", half), "no ternary code")
        return field - 2 * half if field & half else field
    check(alphabet == "log2" and field != half, "no log2 code")
    magnitude = 1 << (field % half - 1) if field % half else 0
    return -magnitude if field & half else magnitude


def check(condition, message):
    """Refuse a file."""
    if not condition:
        raise ValueError(message)


if __name__ == "__main__":
    graph, constants = read(sys.argv[1])
    for node in graph["nodes"]:
        print(node["op"], node["inputs"], "->", node["output"], re.sub(r"\s+", " ", str(node["attrs"])))
        for role, name in node["constants"].items():
            print("   ", role, graph["constants"][name], constants[name][:8], "..." if len(constants[name]) > 8 else "")
