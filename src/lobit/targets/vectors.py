"""The generated test: inputs, and what the session of lobit computes from them: every value that both store, and the outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lobit.runtime import Session
from lobit.targets.lower import Program
from lobit.targets.source import C_TYPES, codes_entry, codes_type, input_names, output_names
from lobit.targets.text import array, comment
from lobit.targets.values import Value

Arrays = Sequence[NDArray[np.float32]]
DTYPES = {"f32": "<f4", "i32": "<i4", "codes": "<i2"}


def make_test(program: Program, name: str, inputs: Arrays) -> tuple[str, int]:
    """Text of `<name>_test.c` and how many values it compares besides the outputs."""
    session = Session(program.graph, isa="scalar")
    outputs: Any = session(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    stored = set(session.value_names)
    seen = [(i, call) for i, call in enumerate(program.calls) if call.makes.name in stored and not call.makes.external]
    values = session.run_values(list(inputs), [call.makes.name for _, call in seen])
    samples = len(inputs[0])
    definitions = []
    for argument, data in zip(input_names(program), inputs, strict=True):
        definitions.append(array(f"the_{argument}", data.reshape(samples, -1).astype("<f4")))
    rows = []
    for index, call in seen:
        memory = np.stack([call.makes.memory(sample) for sample in values[call.makes.name]]).astype("<u4")
        definitions.append(array(f"expected_{index}", memory))
        rows.append(f'    {{{index}, {call.makes.words}, {_bytes(call.makes)}, expected_{index}, "{comment(call.makes.name)}"}},\n')
    for argument, value, data in zip(output_names(program), program.outputs, outputs, strict=True):
        flat = data.reshape(samples, -1).astype(DTYPES[value.type.kind])
        # floats as bits: a NaN of the network's own arithmetic has no literal
        definitions.append(array(f"the_{argument}", flat.view("<u4") if value.type.kind == "f32" else flat))
    entry = codes_entry(program)
    if entry is not None:
        codes = (
            values[entry.makes.name]
            if entry.makes.name in values
            else session.run_values(list(inputs), [entry.makes.name])[entry.makes.name]
        )
        definitions.append(array("the_codes", codes.reshape(samples, -1).astype("u1" if codes_type(entry.makes) == "uint8_t" else "i1")))
    return _text(program, name, samples, "".join(definitions), "".join(rows)), len(seen)


def _bytes(value: Value) -> int:
    return value.elements if value.form == "bytes" else 4 * value.words


def _text(program: Program, name: str, samples: int, definitions: str, rows: str) -> str:
    upper = name.upper()
    outputs = list(zip(output_names(program), program.outputs, strict=True))
    made = "\n".join(f"static {C_TYPES[value.type.kind]} made_{argument}[{value.elements}];" for argument, value in outputs)
    inputs = ", ".join(
        f"the_{argument} + sample * {value.elements}" for argument, value in zip(input_names(program), program.inputs, strict=True)
    )
    results = ", ".join(f"made_{argument}" for argument, _ in outputs)
    checks = "\n".join(
        f'    if (memcmp(made_{argument}, the_{argument} + sample * {value.elements}, sizeof made_{argument})) wrong("{argument}", sample, entry);'
        for argument, value in outputs
    )
    entry = codes_entry(program)
    from_codes = ""
    if entry is not None:
        step = program.inputs[0].elements
        from_codes = f"""\
        lb_begin();
        if ({name}_run_codes(the_codes + sample * {step}, {results}, arena)) wrong("status", sample, "codes");
        lb_end("codes");
        check_outputs(sample, "codes");
"""
    table = f"static const struct {{\n    int call;\n    uint32_t words, bytes;\n    const uint32_t *expected;\n    const char *name;\n}} known[] = {{\n{rows}    {{-1, 0, 0, NULL, NULL}}}};\n"
    return f"""\
/* Written by lobit: what its session computed, compared byte for byte. Prints PASS, or what differs and FAIL. */
#include <stddef.h>
#include <string.h>

#include "{name}.h"
#include "lobit_test.h"

#define SAMPLES {samples}

{definitions}
{table}
{made}
static uint32_t arena[{upper}_ARENA_WORDS];
static int failures, sample, observed;

static void wrong(const char *what, int number, const char *entry) {{
    if (++failures > 20) return;
    lb_write("mismatch: ");
    lb_write(what);
    lb_write(", sample ");
    lb_write_number((uint32_t)number);
    lb_write(", from ");
    lb_write(entry);
    lb_write("\\n");
}}

void {name}_seen(int call, const uint32_t *value);

void {name}_seen(int call, const uint32_t *value) {{
    for (int i = 0; known[i].expected; i++) {{
        if (known[i].call != call) continue;
        observed++;
        if (memcmp(value, known[i].expected + (uint32_t)sample * known[i].words, known[i].bytes)) wrong(known[i].name, sample, "a stored value");
    }}
}}

static void check_outputs(int number, const char *entry) {{
{checks.replace("+ sample *", "+ number *").replace(", sample, entry", ", number, entry")}
}}

int main(void) {{
    for (sample = 0; sample < SAMPLES; sample++) {{
        memset(arena, 0xa5, sizeof arena);
        lb_begin();
        if ({name}_run({inputs}, {results}, arena)) wrong("status", sample, "floats");
        lb_end("floats");
        check_outputs(sample, "floats");
{from_codes}    }}
    lb_write("compared ");
    lb_write_number((uint32_t)observed);
    lb_write(" stored values\\n");
    lb_write(failures ? "FAIL\\n" : "PASS\\n");
    return failures != 0;
}}
"""
