"""The two generated files that are the network: `<name>.h`, its sizes and entries, and `<name>.c`, its constants and calls."""

from __future__ import annotations

from dataclasses import dataclass

from lobit.bits import Alphabet
from lobit.targets.arena import Block, place
from lobit.targets.emit import Emitter
from lobit.targets.lower import Call, Program
from lobit.targets.text import comment
from lobit.targets.values import Value

C_TYPES = {"f32": "float", "i32": "int32_t", "codes": "int16_t"}


@dataclass(frozen=True, slots=True)
class Source:
    """Text of the network's files and what a report says of it."""

    header: str
    body: str
    arena_bytes: int
    weight_bytes: int
    codes_input: Value | None


def make_source(program: Program, name: str) -> Source:
    """Emit a program under a prefix."""
    emitter = Emitter(program)
    templates = [emitter.line(index, call) for index, call in enumerate(program.calls)]
    scratch, words = _place(program)
    lines = []
    for index, (call, template) in enumerate(zip(program.calls, templates, strict=True)):
        names = {f"x{i}": _address(program, x) for i, x in enumerate(call.reads)}
        line = template.format(
            **names, to=_address(program, call.makes), scratch=f"arena + {scratch[index].offset if index in scratch else 0}"
        )
        lines.append(f"    {line}\n    SEEN({index}, {_address(program, call.makes)});\n")
    entry = codes_entry(program)
    writer = _Writer(program, name, lines, entry)
    return Source(
        writer.header(4 * max(words, 1)),
        writer.body(emitter.definitions),
        4 * max(words, 1),
        sum(emitter.flash.values()),
        entry.makes if entry else None,
    )


def codes_entry(program: Program) -> Call | None:
    """The call that turns the only input into uniform codes, where there is just one: then the network can be given the codes."""
    first = [call for call in program.calls if any(x.external for x in call.reads)]
    if len(program.inputs) == len(first) == 1 and program.outputs != [first[0].makes]:
        code = first[0].makes.type.code
        return first[0] if code is not None and code.alphabet is not Alphabet.LOG2 else None
    return None


def _place(program: Program) -> tuple[dict[int, Block], int]:
    """Places of values and scratch; a value lives from the call that makes it to the last that reads it."""
    last = {id(call.makes): index for index, call in enumerate(program.calls)}
    for index, call in enumerate(program.calls):
        last.update({id(x.root): index for x in call.reads})
    last.update({id(x.root): len(program.calls) for x in program.outputs})
    values = [(call.makes, Block(call.makes.words, index, last[id(call.makes)])) for index, call in enumerate(program.calls)]
    scratch = {index: Block(call.scratch, index, index) for index, call in enumerate(program.calls) if call.scratch}
    words = place([*(block for _, block in values), *scratch.values()])
    for value, block in values:
        value.offset = block.offset
    return scratch, words


def _address(program: Program, value: Value) -> str:
    if value.external:
        return input_names(program)[program.inputs.index(value.root)]
    return f"arena + {value.root.offset}"


def input_names(program: Program) -> list[str]:
    """Names of the input arguments; those of the graph are not to be trusted."""
    return ["input"] if len(program.inputs) == 1 else [f"input{i}" for i in range(len(program.inputs))]


def output_names(program: Program) -> list[str]:
    """Names of the output arguments."""
    return ["output"] if len(program.outputs) == 1 else [f"output{i}" for i in range(len(program.outputs))]


def codes_type(value: Value) -> str:
    """C type of an array of input codes."""
    assert value.type.code is not None
    return "uint8_t" if value.type.code.alphabet is Alphabet.UNSIGNED else "int8_t"


class _Writer:
    def __init__(self, program: Program, name: str, lines: list[str], entry: Call | None) -> None:
        self.program, self.name, self.lines, self.entry = program, name, lines, entry
        self.upper = name.upper()

    def outputs(self) -> str:
        return ", ".join(
            f"{C_TYPES[value.type.kind]} *{name}" for value, name in zip(self.program.outputs, output_names(self.program), strict=True)
        )

    def signature(self) -> str:
        inputs = ", ".join(f"const float *{name}" for name in input_names(self.program))
        return f"int {self.name}_run({inputs}, {self.outputs()}, uint32_t *arena)"

    def codes_signature(self) -> str:
        assert self.entry is not None
        return f"int {self.name}_run_codes(const {codes_type(self.entry.makes)} *codes, {self.outputs()}, uint32_t *arena)"

    def header(self, arena_bytes: int) -> str:
        sizes = []
        for kind, names, values in (
            ("INPUT", input_names(self.program), self.program.inputs),
            ("OUTPUT", output_names(self.program), self.program.outputs),
        ):
            for name, value in zip(names, values, strict=True):
                sizes.append(f"#define {self.upper}_{name.upper()}_SIZE {value.elements} /* {kind.lower()}: {comment(str(value.type))} */")
        codes = ""
        if self.entry is not None:
            code = self.entry.makes.type.code
            assert code is not None
            codes = (
                f"\n/* The same network from the codes that its input becomes: {code}, {code.lo} to {code.hi}. Needs no floats of the input.\n"
                f" * LB_NO_CODE: a number is no such code. */\n{self.codes_signature()};\n"
            )
        return f"""\
/* Written by lobit; do not edit. README.md says how to use it. */
#ifndef LOBIT_NET_{self.upper}_H
#define LOBIT_NET_{self.upper}_H

#include <stdint.h>

#include "lobit_c.h"

{chr(10).join(sizes)}
#define {self.upper}_ARENA_BYTES {arena_bytes}
#define {self.upper}_ARENA_WORDS ({self.upper}_ARENA_BYTES / 4)

/* Run the network on one sample. Arrays are in PyTorch's order, (channels, height, width). The arena is {self.upper}_ARENA_WORDS words of memory, free again
 * afterwards; calls with arenas of their own may run at one time. Returns LB_OK, or LB_NOT_FINITE: an input is infinite or NaN. */
{self.signature()};
{codes}
#endif
"""

    def body(self, definitions: list[str]) -> str:
        first = sum(1 for call in self.program.calls if any(x.external for x in call.reads))
        finite = " || ".join(
            f"!lb_finite({name}, {value.elements})" for name, value in zip(input_names(self.program), self.program.inputs, strict=True)
        )
        rest = "".join(self.lines[first:]) + "".join(self.write_output(i) for i in range(len(self.program.outputs)))
        arguments = ", ".join(output_names(self.program))
        return f"""\
/* Written by lobit; do not edit. */
#include <stddef.h>

#include "{self.name}.h"

#ifdef LB_OBSERVE
void {self.name}_seen(int call, const uint32_t *value);
#define SEEN(call, value) {self.name}_seen(call, value)
#else
#define SEEN(call, value) (void)(call)
#endif

{"".join(definitions)}
/* All calls but those that read the input. */
static void rest({self.outputs()}, uint32_t *arena) {{
{rest}}}

{self.signature()} {{
    if ({finite}) return LB_NOT_FINITE;
{"".join(self.lines[:first])}    rest({arguments}, arena);
    return LB_OK;
}}
{self.codes_body(arguments)}"""

    def codes_body(self, arguments: str) -> str:
        if self.entry is None:
            return ""
        value = self.entry.makes
        code = value.type.code
        assert code is not None
        channels, pixels = self.entry.reads[0].order
        is_signed = int(codes_type(value) == "int8_t")
        to = _address(self.program, value)
        return f"""
{self.codes_signature()} {{
    static const lb_value value = {value.literal};
    if (lb_codes_in(&value, {code.lo}, {code.hi}, (const uint8_t *)codes, {is_signed}, {to}, {channels}, {pixels})) return LB_NO_CODE;
    SEEN(0, {to});
    rest({arguments}, arena);
    return LB_OK;
}}
"""

    def write_output(self, index: int) -> str:
        value, name = self.program.outputs[index], output_names(self.program)[index]
        x, (channels, pixels) = _address(self.program, value), value.order
        if value.type.kind != "codes":
            kind = "floats" if value.type.kind == "f32" else "sums"
            return f"    lb_{kind}_out({name}, {x}, {channels}, {pixels});\n"
        return f"    {{\n        static const lb_value value = {value.literal};\n        lb_codes_out({name}, &value, {x}, {channels}, {pixels});\n    }}\n"
