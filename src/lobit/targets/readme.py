"""The Makefile and the README of an export."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lobit.format import Step
from lobit.targets.lower import Program
from lobit.targets.source import C_TYPES, Source, codes_entry, codes_type, input_names, output_names
from lobit.targets.text import comment

LOOPS = ("lobit_values.c", "lobit_stages.c", "lobit_pools.c", "lobit_products.c")
PIXEL_LEVELS = 255


def makefile(name: str) -> str:
    """The Makefile: the test on this machine, with another compiler, or on an emulated board; sizes."""
    return f"""\
# make test                               build the test with $(CC) and run it
# make test CROSS=aarch64-linux-gnu- RUN=qemu-aarch64-static LDFLAGS=-static
# make board-test BOARD=m3                bare metal on QEMU's mps2-an385 (m3) or mps2-an386 (m4)
# make size CROSS=arm-none-eabi- CPU="-mcpu=cortex-m3 -mthumb"
ifdef CROSS
CC = $(CROSS)gcc
endif
SIZE ?= $(CROSS)size
OPTIMIZE ?= -O2
# Every float operation is rounded once: nothing may be contracted or reordered.
FLAGS = -std=c99 -Wall -Wextra -pedantic $(OPTIMIZE) -ffp-contract=off -fno-fast-math -ffunction-sections -fdata-sections $(CPU) $(CFLAGS)
LOOPS = {" ".join(LOOPS)}
NET = {name}.c $(LOOPS)
HEADERS = $(wildcard *.h board/*.h)
RUN ?=

BOARD ?= m3
ARM ?= arm-none-eabi-
ARM_CPU_m3 = -mcpu=cortex-m3
ARM_CPU_m4 = -mcpu=cortex-m4 -mfloat-abi=hard -mfpu=fpv4-sp-d16
MACHINE_m3 = mps2-an385
MACHINE_m4 = mps2-an386
# With OBSERVE= the test compares outputs alone, so that the counts are those of the network.
OBSERVE ?= -DLB_OBSERVE
BOARD_FLAGS = $(FLAGS) -mthumb $(ARM_CPU_$(BOARD)) -fno-tree-loop-distribute-patterns -I.
QEMU ?= qemu-system-arm

.PHONY: all test board board-test size clean
all: build/test

build/test: $(NET) {name}_test.c host.c $(HEADERS)
	@mkdir -p build
	$(CC) $(FLAGS) $(OBSERVE) $(NET) {name}_test.c host.c -o $@ $(LDFLAGS)

test: build/test
	$(RUN) build/test

build/board-$(BOARD).elf: $(NET) {name}_test.c board/startup.c board/board.c board/mps2.ld $(HEADERS)
	@mkdir -p build
	$(ARM)gcc $(BOARD_FLAGS) $(OBSERVE) $(NET) {name}_test.c board/startup.c board/board.c -T board/mps2.ld -nostdlib -Wl,--gc-sections,-Map=build/board-$(BOARD).map -lgcc -o $@

board: build/board-$(BOARD).elf

board-test: build/board-$(BOARD).elf
	$(QEMU) -M $(MACHINE_$(BOARD)) -icount shift=0 -display none -monitor none -serial stdio -semihosting -kernel $<

# Flash is text + data, RAM is data + bss; the arena, the stack and libgcc's floats come with the program that links these.
size: $(patsubst %.c,build/%.o,$(NET))
	$(SIZE) -t $^

build/%.o: %.c $(HEADERS)
	@mkdir -p build
	$(CC) $(FLAGS) -c $< -o $@

clean:
	rm -rf build
"""


def readme(program: Program, source: Source, name: str) -> str:
    """What is in the folder and how to use it."""
    upper = name.upper()
    outputs = "\n".join(
        f"    static {C_TYPES[value.type.kind]} {argument}[{upper}_{argument.upper()}_SIZE];"
        for argument, value in zip(output_names(program), program.outputs, strict=True)
    )
    inputs = "\n".join(f"    static float {argument}[{upper}_{argument.upper()}_SIZE];" for argument in input_names(program))
    arguments = ", ".join([*input_names(program), *output_names(program), "arena"])
    layers = "\n".join(f"| {comment(call.name)} | {comment(str(call.makes.type))} | {call.makes.form} |" for call in program.calls)
    return f"""\
# A network in C99

Written by lobit. Constants take {source.weight_bytes} bytes, the arena {source.arena_bytes} bytes. Code comes on top; `make size` shows it.

```c
#include "{name}.h"

static uint32_t arena[{upper}_ARENA_WORDS];

int main(void) {{
{inputs}
{outputs}
    /* fill in the input, in the order (channels, height, width) */
    return {name}_run({arguments});
}}
```

Compile `{name}.c`, {", ".join(f"`{loop}`" for loop in LOOPS)} with `-std=c99 -ffp-contract=off`; leave `{name}_test.c`, `host.c` and `board/` out. They need
`memcpy` and `memset`, no heap and no libm. `-ffunction-sections -Wl,--gc-sections` drops the loops that this network does not use.
{_codes_text(program, name)}
`make test` runs the network on the test vectors and compares each byte with what lobit computed. `make board-test BOARD=m3` does so on an emulated
Cortex-M3, `BOARD=m4` on a Cortex-M4.

| layers | makes | held as |
| --- | --- | --- |
{layers}
"""


def _codes_text(program: Program, name: str) -> str:
    entry = codes_entry(program)
    if entry is None:
        return ""
    same = " An 8-bit grey value p, where the network is given p / 255, is its own code." if _pixels_are_codes(program) else ""
    return f"\n`{name}_run_codes` takes the input as {entry.makes.type.code} codes in `{codes_type(entry.makes)}`, and needs no float image.{same}\n"


def _pixels_are_codes(program: Program) -> bool:
    """Whether the first chain turns p / 255 into the code p, for every p and channel."""
    entry = codes_entry(program)
    if entry is None or str(entry.makes.type.code) != "unsigned8" or entry.makes.type.zero:
        return False
    channels = max([1, *(program.constant(entry.node, role).data.size for role in entry.node.constants)])
    x = np.repeat((np.arange(PIXEL_LEVELS + 1, dtype=np.float32) / np.float32(PIXEL_LEVELS))[:, None], channels, axis=1)
    with np.errstate(all="ignore"):
        for step in entry.node.attrs["steps"]:
            x = _apply(step, x, None if step.operand is None else program.constant(entry.node, step.operand).data)
    return bool(np.array_equal(np.clip(np.rint(x), 0, PIXEL_LEVELS), np.repeat(np.arange(PIXEL_LEVELS + 1)[:, None], channels, axis=1)))


def _apply(step: Step, x: NDArray[np.float32], constant: NDArray[np.float32] | None) -> NDArray[np.float32]:
    if constant is None:
        return np.rint(x)
    functions = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "max": np.maximum, "min": np.minimum}
    return np.asarray(functions[step.op](x, constant), np.float32)
