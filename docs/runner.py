"""Run a .lobit file of the exact class with Python's standard library alone, one sample at a time.

usage: python runner.py FILE < numbers
"""

import math
import struct
import sys
from itertools import product

from reader import code_type, read


def f32(x):
    """The nearest float32. One float64 operation on float32 numbers, then this, equals the float32 operation: no double rounding shows."""
    return struct.unpack("<f", struct.pack("<f", x))[0]


STEPS = {
    "add": lambda x, c: f32(x + c),
    "sub": lambda x, c: f32(x - c),
    "mul": lambda x, c: f32(x * c),
    "div": lambda x, c: f32(x / c),
    "max": max,
    "min": min,
}


WINDOWED = ("conv2d", "max_pool2d", "avg_pool2d", "pad2d", "resize2d")
"""To these a value of shape (C, L) is an image of one row."""


class Value:
    """A tensor: a flat list in C order, its shape, and for codes their lowest, highest and the zero."""

    def __init__(self, data, shape, code=None, zero=0):
        self.data, self.shape, self.code, self.zero = data, shape, code, zero

    def channel(self, index):
        """The channel of the element at an index."""
        return index // (len(self.data) // self.shape[0])


def levels(text):
    """Lowest code, highest code, distance of two codes."""
    alphabet, bits = code_type(text)
    top = (1 << bits) - 1
    reach = 1 << (1 << max(bits - 1, 0)) - 2 if alphabet == "log2" else 0
    ranges = {
        "log2": (-reach, reach, 1),
        "unsigned": (0, top, 1),
        "odd": (-top, top, 2),
        "signed": (-(1 << bits - 1), (1 << bits - 1) - 1, 1),
        "ternary": (-1, 1, 1),
    }
    return ranges[alphabet]


def power(x, high):
    """The power of two that is nearest to x by logarithm, with its sign; 0 below the root of a half."""
    mantissa, exponent = math.frexp(abs(x))  # 0.5 <= mantissa < 1
    exponent += (2 * mantissa >= f32(math.sqrt(2))) - 1
    size = 0 if exponent < 0 or x == 0 else min(2**exponent, high)
    return -size if x < 0 else size


def chain(node, c, x):
    """float32 steps, then codes where the node makes some."""
    out = []
    for index, v in enumerate(x.data):
        for op, *operand in node["attrs"]["steps"]:
            if operand:
                values = c[operand[0]]
                v = STEPS[op](v, values[x.channel(index) if len(values) > 1 else 0])
            else:
                v = f32(v) if op == "to_float" else float(round(v))  # half to even
        out.append(v)
    text, zero = node["attrs"].get("code"), node["attrs"].get("zero", 0)
    if text is None:
        return Value(out, x.shape)
    low, high, _ = levels(text)
    if text.startswith("log2"):
        return Value([power(v, high) for v in out], x.shape, text)
    if text == "odd1":
        return Value([1 if v >= 0 else -1 for v in out], x.shape, text)
    return Value([min(max(round(v), low - zero), high - zero) + zero for v in out], x.shape, text, zero)


def threshold(node, c, x):
    """Level u = how many thresholds of the channel the sum has reached; code = lowest + u * distance."""
    low, high, step = levels(node["attrs"]["code"])
    count = (high - low) // step
    out = []
    for index, s in enumerate(x.data):
        channel = x.channel(index)
        reached = [s >= t if c["direction"][channel] > 0 else s <= t for t in c["thresholds"][channel * count : (channel + 1) * count]]
        out.append(low + sum(reached) * step)
    return Value(out, x.shape, node["attrs"]["code"], node["attrs"]["zero"])


def linear(node, c, x):
    """Sums of (code - zero) times weight code."""
    k = x.shape[0]
    rows = len(c["weight"]) // k
    return Value([sum((x.data[i] - x.zero) * c["weight"][o * k + i] for i in range(k)) for o in range(rows)], (rows,))


def window(attrs, kernel, shape):
    """Output positions, each with its taps inside the image: (position, [(tap, row, column)])."""
    (top, left, bottom, right), (sh, sw), (dh, dw) = attrs["padding"], attrs["stride"], attrs.get("dilation", (1, 1))
    height = (shape[1] + top + bottom - dh * (kernel[0] - 1) - 1) // sh + 1
    width = (shape[2] + left + right - dw * (kernel[1] - 1) - 1) // sw + 1
    taps = {}
    for i, j in product(range(height), range(width)):
        places = [(a * kernel[1] + b, i * sh - top + a * dh, j * sw - left + b * dw) for a, b in product(*map(range, kernel))]
        taps[i * width + j] = [place for place in places if 0 <= place[1] < shape[1] and 0 <= place[2] < shape[2]]
    return (height, width), taps


def conv2d(node, c, x, shape):
    """Sums over the taps inside the image: padding is real 0, whatever the code of 0 is."""
    outputs, channels, *kernel = shape
    (height, width), taps = window(node["attrs"], kernel, x.shape)
    area, per_group, out = kernel[0] * kernel[1], outputs // node["attrs"]["groups"], []
    for o, inside in product(range(outputs), taps.values()):
        total = 0
        for i, (tap, row, column) in product(range(channels), inside):
            at = ((o // per_group * channels + i) * x.shape[1] + row) * x.shape[2] + column
            total += (x.data[at] - x.zero) * c["weight"][(o * channels + i) * area + tap]
        out.append(total)
    return Value(out, (outputs, height, width))


def pool(node, x, reduce):
    """Each window's values in raster order, padding left out."""
    (height, width), taps = window(node["attrs"], node["attrs"]["kernel"], x.shape)
    size = x.shape[1] * x.shape[2]
    planes = product(range(x.shape[0]), taps.values())
    out = [reduce([x.data[c * size + row * x.shape[2] + column] for _, row, column in inside]) for c, inside in planes]
    return Value(out, (x.shape[0], height, width), x.code, x.zero)


def pad(node, x):
    """The image with a border of one value."""
    top, left, bottom, right = node["attrs"]["padding"]
    channels, height, width = x.shape
    value = node["attrs"]["value"] if x.code else f32(node["attrs"]["value"])
    out = []
    for c, i, j in product(range(channels), range(-top, height + bottom), range(-left, width + right)):
        inside = 0 <= i < height and 0 <= j < width
        out.append(x.data[(c * height + i) * width + j] if inside else value)
    return Value(out, (channels, height + top + bottom, width + left + right), x.code, x.zero)


def mix(a, b, weight):
    """From a to b by a share of the way."""
    return f32(a + f32(weight * f32(b - a)))


def resize(c, x):
    """Pixels by tables of rows and columns; with weights, mixes of them and their next ones."""
    channels, height, width = x.shape
    rows, columns, down, right = (c.get(role) for role in ("rows", "columns", "row_weights", "column_weights"))
    out = []
    for plane, i, j in product(range(channels), range(len(rows)), range(len(columns))):
        top, left = rows[i], columns[j]
        bottom, beside = min(top + 1, height - 1), min(left + 1, width - 1)
        a, b, below_a, below_b = (x.data[(plane * height + row) * width + column] for row, column in product((top, bottom), (left, beside)))
        out.append(a if down is None else mix(mix(a, below_a, down[i]), mix(b, below_b, down[i]), right[j]))
    return Value(out, (channels, len(rows), len(columns)), x.code, x.zero)


def average(node):
    """float32 sums in order, then one division. A zero that padding adds changes nothing."""

    def reduce(values):
        total = 0.0
        for v in values:
            total = f32(total + v)
        return f32(total / node["attrs"]["divisor"])

    return reduce


def run(graph, constants, sample):
    """The first output, a flat list, for one sample of the first input: a flat list of float32 numbers."""
    (name, shape), *_ = graph["inputs"]
    values = {name: Value(list(sample), tuple(shape))}
    for node in graph["nodes"]:
        x, *others = (values[name] for name in node["inputs"])
        c = {role: constants[name] for role, name in node["constants"].items()}
        row = node["op"] in WINDOWED and len(x.shape) == 2
        if row:
            x = Value(x.data, (x.shape[0], 1, x.shape[1]), x.code, x.zero)
        match node["op"]:
            case "chain":
                y = chain(node, c, x)
            case "threshold":
                y = threshold(node, c, x)
            case "linear":
                y = linear(node, c, x)
            case "conv2d":
                y = conv2d(node, c, x, graph["constants"][node["constants"]["weight"]]["shape"])
            case "max_pool2d":
                y = pool(node, x, max)
            case "avg_pool2d":
                y = pool(node, x, average(node))
            case "pad2d":
                y = pad(node, x)
            case "resize2d":
                y = resize(c, x)
            case "add":
                y = Value([f32(a + b) for a, b in zip(x.data, others[0].data, strict=True)], x.shape)
            case "concat":
                joined = [x, *others]
                y = Value([v for part in joined for v in part.data], (sum(part.shape[0] for part in joined), *x.shape[1:]), x.code, x.zero)
            case "flatten":
                y = Value(x.data, (len(x.data),), x.code, x.zero)
            case other:
                raise ValueError(f"{other} is outside the exact class")
        values[node["output"]] = Value(y.data, (y.shape[0], y.shape[2]), y.code, y.zero) if row else y
    return values[graph["outputs"][0]].data


if __name__ == "__main__":
    print(*run(*read(sys.argv[1]), [f32(float(number)) for number in sys.stdin.read().split()]))
