"""C text: initializers of arrays, and names from a graph, which are not to be trusted, made harmless."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from lobit.errors import ConfigError

PER_LINE = {"u4": 10, "i4": 12, "i2": 16, "i1": 24, "u1": 24, "f4": 6}
TYPES = {"u4": "uint32_t", "i4": "int32_t", "i2": "int16_t", "i1": "int8_t", "u1": "uint8_t", "f4": "float"}
KEYWORDS = frozenset(["auto", "break", "case", "char", "const", "continue", "default", "do", "double", "else", "enum", "extern", "float", "for", "goto", "if", "inline", "int", "long", "register", "restrict", "return", "short", "signed", "sizeof", "static", "struct", "switch", "typedef", "union", "unsigned", "void", "volatile", "while", "main"])  # fmt: skip


# A folder of these stands first among the compiler's, so net.h must not hide a header of C's own.
HEADERS = frozenset(["assert", "complex", "ctype", "errno", "fenv", "float", "inttypes", "iso646", "limits", "locale", "math", "setjmp", "signal", "stdarg", "stdbool", "stddef", "stdint", "stdio", "stdlib", "string", "tgmath", "time", "wchar", "wctype", "features", "alloca", "endian", "unistd", "host", "board", "startup"])  # fmt: skip


def comment(name: str) -> str:
    """A name for a comment: nothing that could close it, splice lines or spell a trigraph."""
    return re.sub(r"[^A-Za-z0-9_., ()+-]", "_", name)[:80]


def check_identifier(name: str) -> str:
    """Refuse a prefix that C or a file name could not bear.

    Raises
    ------
    ConfigError
        Unless it has 1 to 40 lower-case letters, digits and underscores, begins with a letter, and is free in C.
    """
    if (
        not isinstance(name, str)
        or not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name)
        or name in KEYWORDS | HEADERS
        or name.startswith(("lb_", "lobit"))
    ):
        raise ConfigError(
            f"the name is {name!r}; it begins C identifiers, so it needs 1 to 40 lower-case letters, digits and underscores, a letter first, "
            "and must be no C keyword, no header of C, none of host, board and startup, and not begin with lb_ or lobit"
        )
    return name


def array(name: str, data: NDArray[np.generic], *, storage: str = "static const") -> str:
    """Definition of an array, flat."""
    kind = data.dtype.str[1:]
    flat = data.reshape(-1).tolist()
    words = [_literal(kind, value) for value in flat]
    step = PER_LINE[kind]
    lines = [", ".join(words[i : i + step]) for i in range(0, len(words), step)]
    return f"{storage} {TYPES[kind]} {name}[{len(words)}] = {{\n    " + ",\n    ".join(lines) + "};\n"


def _literal(kind: str, value: float) -> str:
    if kind == "f4":
        return f"{float(value).hex()}f"
    if kind == "u4":
        return f"0x{int(value):08x}u"
    return "(-2147483647 - 1)" if value == -(2**31) else str(value)
