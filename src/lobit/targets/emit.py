"""Calls as C: each gets its constants, its descriptor (a `static const` struct of lobit_c.h) and one line in the function that runs the network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lobit.bits import Alphabet
from lobit.format import Node, ValueType, accumulator_bound
from lobit.format.geometry import Window, image_size
from lobit.format.table import MAX_SUM
from lobit.targets import algebra
from lobit.targets.lower import Call, Program
from lobit.targets.text import array, comment
from lobit.targets.values import Field, Value

INT32 = np.iinfo(np.int32)


class Emitter:
    """Collects definitions and the lines that run calls."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.definitions: list[str] = []
        self.flash: dict[str, int] = {}

    def line(self, index: int, call: Call) -> str:
        """Define what a call needs and return the statement that makes it; its addresses are {x0}, {x1}, {to} and {scratch}."""
        self.prefix = f"n{index}"
        self.definitions.append(f"/* {comment(call.name)}: {comment(str(call.makes.type))} */\n")
        match call.node.op:
            case "linear" | "conv2d":
                return self.product(call)
            case "chain" | "threshold":
                return self.stage_on_value(call)
            case "max_pool2d":
                kind = {"planes": "planes", "bytes": "bytes", "i32": "sums", "f32": "floats"}[call.makes.form]
                window = self.window(self.program.window(call.node), call.reads[0].type)
                return f"lb_max_{kind}(&{window}, &{self.value(call.reads[0])}, {{x0}}, {{to}});"
            case "avg_pool2d":
                window = self.window(self.program.window(call.node), call.reads[0].type)
                return f"lb_average(&{window}, {call.node.attrs['divisor']}.0f, {{x0}}, {{to}});"
            case "add":
                return f"lb_add_floats({{x0}}, {{x1}}, {{to}}, {call.makes.elements});"
            case "pad2d":
                return self.pad(call)
            case "concat":
                return self.concat(call)
            case "resize2d":
                return self.resize(call)
            case _:
                channels, pixels = call.reads[0].order
                return f"lb_flatten(&{self.value(call.makes)}, {{x0}}, {{to}}, {channels}, {pixels});"

    def define(self, role: str, data: NDArray[np.generic]) -> str:
        """A constant array; returns its name."""
        name = f"{self.prefix}_{role}"
        self.definitions.append(array(name, data))
        self.flash[self.prefix] = self.flash.get(self.prefix, 0) + data.nbytes
        return name

    def struct(self, kind: str, role: str, **fields: object) -> str:
        """A descriptor; returns its name."""
        name = f"{self.prefix}_{role}"
        body = ", ".join(f".{key} = {value}" for key, value in fields.items())
        self.definitions.append(f"static const {kind} {name} = {{{body}}};\n")
        return name

    def value(self, value: Value, role: str = "value") -> str:
        """An ``lb_value``; returns its name."""
        name = f"{self.prefix}_{role}"
        self.definitions.append(f"static const lb_value {name} = {value.literal};\n")
        return name

    def window(self, window: Window, x: ValueType, role: str = "window") -> str:
        """A window over an image of type ``x``; returns its name."""
        size = image_size(x.shape)
        return self.struct(
            "lb_window",
            role,
            channels=x.shape[0],
            size=_pair(size),
            out=_pair(window.output_size(size)),
            kernel=_pair(window.kernel),
            stride=_pair(window.stride),
            start=_pair((-window.padding[0], -window.padding[1])),
            dilation=_pair(window.dilation),
        )

    def pad(self, call: Call) -> str:
        """Padding with a float, as its bits, or with the level of a code."""
        x, made, value = call.reads[0], call.makes, call.node.attrs["value"]
        field = None if made.type.code is None else Field.of(made.type.code)
        fill = int(np.float32(value).view(np.uint32)) if field is None else (value - field.base) // field.spacing
        window = self.window(self.program.window(call.node), x.type)
        return f"lb_pad(&{window}, &{self.value(x)}, &{self.value(made, 'made')}, {fill:#x}, {{x0}}, {{to}});"

    def concat(self, call: Call) -> str:
        """Each part with its channels: all its elements where the value is a vector."""
        vector = len(call.makes.type.shape) == 1
        parts = [f"{{{x.literal}, {x.elements if vector else x.type.shape[0]}}}" for x in call.reads]
        name = f"{self.prefix}_parts"
        self.definitions.append(f"static const lb_part {name}[{len(parts)}] = {{{', '.join(parts)}}};\n")
        reads = ", ".join(f"{{x{index}}}" for index in range(len(parts)))
        pixels = 1 if vector else call.makes.order[1]
        made = self.value(call.makes)
        return f"lb_concat({name}, {len(parts)}, &{made}, (const uint32_t *const[]){{{{{reads}}}}}, {{to}}, {pixels});"

    def resize(self, call: Call) -> str:
        """Nearest pixels of any value, or a mix of floats."""
        x, node = call.reads[0], call.node
        roles = [role for role in ("rows", "columns", "row_weights", "column_weights") if role in node.constants]
        tables = {role: self.program.constant(node, role).data for role in roles}
        size, out = image_size(x.type.shape), (len(tables["rows"]), len(tables["columns"]))
        names = {role: self.define(role, table) for role, table in tables.items()}
        resizing = self.struct("lb_resizing", "resizing", channels=x.type.shape[0], size=_pair(size), out=_pair(out), **names)
        if "row_weights" in roles:
            return f"lb_resize_mixed(&{resizing}, {{x0}}, {{to}});"
        return f"lb_resize_nearest(&{resizing}, &{self.value(x)}, &{self.value(call.makes, 'made')}, {{x0}}, {{to}});"

    def product(self, call: Call) -> str:
        """A linear layer or a convolution with what it takes in."""
        x, node = call.reads[0], call.node
        constant = self.program.constant(node, "weight")
        assert constant.code is not None
        codes = constant.codes().astype(np.int64)
        # patches are channels-last: a kernel's taps are outermost; of a flattened image, its pixels
        rows = np.moveaxis(codes.reshape(len(codes), *(x.order if node.op == "linear" else (codes.shape[1], -1))), 1, -1).reshape(
            len(codes), -1
        )
        acts, weights = algebra.activations(x.type, x.form), algebra.weights(rows, constant.code, x.form)
        padded = node.op == "conv2d" and any(node.attrs["padding"])
        planes = (len(acts.coefs) if x.form == "planes" else 1) + (pad := int(padded and acts.pad_coef != 0))
        bias = acts.base * rows.sum(axis=1)
        fits = accumulator_bound(rows.shape[1], x.type, constant.code) + int(np.abs(bias).max()) < MAX_SUM
        folded = call.stage is not None and call.stage.op == "threshold" and fits
        finish, stage = self.stage(call.stage, call.makes, bias if folded else None)
        outputs, fields = len(rows), {}
        if bias.any() and not folded:
            # modulo 2^32, as all sums are: a constant beyond 32 bits is still exact
            fields["bias"] = self.define("bias", (bias & 0xFFFFFFFF).astype(np.uint32).view(np.int32))
        if node.op == "conv2d":
            fields["window"] = "&" + self.window(self.program.window(node), x.type)
            call.scratch = planes * weights.words
        if call.pool is not None:
            image = self.program.graph.types[node.output]
            fields["pool"] = "&" + self.window(self.program.window(call.pool), image, "pool")
            call.scratch += outputs
        name = self.struct(
            "lb_product",
            "product",
            sums="lb_sums_" + x.form,
            finish=finish,
            stage=stage,
            weights=self.define("weights", weights.packed),
            **fields,
            outputs=outputs,
            groups=node.attrs.get("groups", 1),
            inputs=rows.shape[1],
            words=weights.words,
            x=x.literal,
            w_bits=len(weights.coefs),
            pad_plane=pad,
            w_base=weights.base,
            x_coef=_list((*acts.coefs, acts.pad_coef) if pad else acts.coefs),
            w_coef=_list(weights.coefs),
            fill=acts.fill,
        )
        function = "lb_linear" if node.op == "linear" else "lb_conv2d_pooled" if call.pool else "lb_conv2d"
        return f"{function}(&{name}, {{x0}}, {{to}}{', {scratch}' if node.op == 'conv2d' else ''});"

    def stage_on_value(self, call: Call) -> str:
        """A chain or a threshold on a stored value or on the input."""
        x, node = call.reads[0], call.node
        finish, stage = self.stage(node, call.makes, None, floats=x.form == "f32")
        channels, pixels = x.order
        each = node.op == "threshold" or any(self.program.constant(node, role).data.size > 1 for role in node.constants)
        if not each and (not x.external or 1 in x.order):
            channels, pixels = channels * pixels, 1  # one constant for all: rows may be as long as they like
        if x.external:
            return f"lb_run_input({finish}, {stage}, {{x0}}, {{to}}, {channels}, {pixels});"
        return f"lb_run_stage({finish}, {stage}, &{self.value(x)}, {{x0}}, {{to}}, {channels}, {pixels});"

    def stage(self, node: Node | None, out: Value, bias: NDArray[np.int64] | None, *, floats: bool = False) -> tuple[str, str]:
        """Define a stage; returns its finishing function and its address. ``bias`` is what the sums lack, to be taken off the thresholds."""
        if node is None:
            return "lb_store", "NULL"
        if node.op == "threshold":
            return "lb_threshold", "&" + self.threshold(node, out, bias)
        steps = []
        for step in node.attrs["steps"]:
            if step.op == "round":
                steps.append("{lb_round, NULL, -1}")
            elif step.operand is not None:
                data = self.program.constant(node, step.operand).data.astype("<f4")
                steps.append(f"{{lb_{step.op}, {self.define(f'k{len(steps)}', data)}, {int(data.size > 1)}}}")
        fields: dict[str, object] = {"out": out.literal, "floats": int(floats), "count": len(steps)}
        if steps:
            name = f"{self.prefix}_steps"
            self.definitions.append(f"static const lb_step {name}[{len(steps)}] = {{{', '.join(steps)}}};\n")
            fields["steps"] = name
        code, zero = out.type.code, out.type.zero
        if code is None:
            return "lb_chain_to_floats", "&" + self.struct("lb_stage", "stage", **fields)
        if code.alphabet is Alphabet.LOG2:
            return "lb_chain_to_powers", "&" + self.struct("lb_stage", "stage", **fields, low=code.lo, high=code.hi)
        if code.alphabet is Alphabet.ODD:
            return "lb_chain_to_sign", "&" + self.struct("lb_stage", "stage", **fields)
        fields |= {"low": code.lo - zero, "high": code.hi - zero, "level": code.lo - Field.of(code).base}
        return "lb_chain_to_codes", "&" + self.struct("lb_stage", "stage", **fields)

    def threshold(self, node: Node, out: Value, bias: NDArray[np.int64] | None) -> str:
        """The stage of a threshold; returns its name."""
        assert out.type.code is not None
        reach = self.program.constant(node, "thresholds").data.astype(np.int64)
        if bias is not None:
            reach = np.clip(reach - bias[:, None], INT32.min, INT32.max)
        falls = self.program.constant(node, "direction").data < 0
        bits = np.packbits(np.pad(falls, (0, -len(falls) % 32)), bitorder="little").view("<u4")
        field = Field.of(out.type.code)
        return self.struct(
            "lb_stage",
            "stage",
            out=out.literal,
            first=(out.type.code.lo - field.base) // field.spacing,
            count=reach.shape[1],
            reach=self.define("reach", reach.astype("<i4")),
            falls=self.define("falls", bits.astype("<u4")),
        )


def _pair(numbers: Sequence[int]) -> str:
    return f"{{{numbers[0]}, {numbers[1]}}}"


def _list(numbers: tuple[int, ...]) -> str:
    return f"{{{', '.join(map(str, numbers))}}}"
