"""Pages that need nothing else: one HTML file with its style and pictures inside."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from lobit.atomic import atomic_file
from lobit.report.figures import css_variables


def write_page(path: Path, template: str, **values: Any) -> None:
    """Render ``<template>.html.jinja``, which extends ``page.html.jinja``, and write it whole.

    Parameters
    ----------
    path : Path
    template : str
    **values
        What the template shows; pictures as `lobit.report.figures.inline_svg` makes them, marked safe in the template.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, loader=jinja2.FunctionLoader(_source))
    text = environment.get_template(template).render(css=css_variables(), **values)
    with atomic_file(path) as stream:
        stream.write(text.encode())


def _source(name: str) -> str:
    return (files("lobit.report") / f"{name}.html.jinja").read_text(encoding="utf-8")
