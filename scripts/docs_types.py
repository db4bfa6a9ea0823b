"""What numpydoc says of a parameter's type is prose, such as "path-like" or "int or None": the API pages show it as written, with the default of the signature."""

from __future__ import annotations

import re
from typing import Any

import griffe


class TypesAsWritten(griffe.Extension):
    """Undoes the reading of such prose as a Python expression ("path - like"), and of the first of several choices as the default."""

    def on_package(self, *, pkg: griffe.Module, loader: Any, **kwargs: Any) -> None:
        """Go through a package once it is loaded."""
        self._walk(pkg)

    def _walk(self, item: griffe.Object) -> None:
        if item.docstring:
            self._mend(item)
        for member in item.members.values():
            if not member.is_alias:
                self._walk(member)  # type: ignore[arg-type]  # aliases are left out

    @staticmethod
    def _mend(item: griffe.Object) -> None:
        assert item.docstring
        signature = {own.name: own for own in getattr(item, "parameters", ())}
        for section in item.docstring.parsed:
            if section.kind is not griffe.DocstringSectionKind.parameters:
                continue
            for parameter in section.value:
                own = signature.get(parameter.name)
                written = written_type(item.docstring.value, parameter.name)
                if written and not re.fullmatch(r"[\w.]+", written):
                    parameter.annotation = written
                elif not written and own is not None:
                    parameter.annotation = own.annotation
                parameter.value = own.default if own is not None else None


def written_type(docstring: str, name: str) -> str:
    """The type of a parameter as its docstring has it, without ", optional"; empty where it has none."""
    for names, kind in re.findall(r"^(\*{0,2}\w[\w, *]*?)(?: : (.*))?$", docstring, re.M):
        if name.lstrip("*") in [each.strip(" *") for each in names.split(",")]:
            return str(kind).removesuffix(", optional").replace("{", "").replace("}", "")
    return ""
