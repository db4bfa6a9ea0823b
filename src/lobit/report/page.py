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
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, loader=jinja2.FunctionLoader(_source), trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"count": count, "share": share, "size": size, "time": duration}
    text = environment.get_template(template).render(css=css_variables(), **values)
    with atomic_file(path) as stream:
        stream.write(text.encode())


def _source(name: str) -> str:
    return (files("lobit.report") / f"{name}.html.jinja").read_text(encoding="utf-8")


def count(n: int) -> str:
    """A whole number, its digits in threes.

    Examples
    --------
    >>> count(1179648)
    '1,179,648'
    """
    return f"{n:,}"


def share(value: float, digits: int = 1) -> str:
    r"""A share as percent; one that is not zero never looks like it.

    Examples
    --------
    >>> share(0.12345), share(0.0), share(0.00002), share(0.99972, 2)
    ('12.3\xa0%', '0\xa0%', '<0.1\xa0%', '99.97\xa0%')
    """
    least = 10.0**-digits
    if value == 0:
        return "0\u00a0%"
    return f"<{least:.{digits}f}\u00a0%" if 0 < 100 * value < least / 2 else f"{100 * value:.{digits}f}\u00a0%"


def size(bytes_: int) -> str:
    r"""Bytes with three digits and a unit of thousands.

    Examples
    --------
    >>> size(999), size(41216), size(604288), size(1_234_567)
    ('999\xa0B', '41.2\xa0kB', '604\xa0kB', '1.23\xa0MB')
    """
    return _with_unit(bytes_, ("B", "kB", "MB", "GB"))


def duration(seconds: float) -> str:
    r"""A time with three digits and its unit.

    Examples
    --------
    >>> duration(1.09e-05), duration(0.0123), duration(2.5)
    ('10.9\xa0µs', '12.3\xa0ms', '2.50\xa0s')
    """
    if seconds >= 1:
        return f"{seconds:.3g}\u00a0s" if seconds >= 10 else f"{seconds:.2f}\u00a0s"
    return _with_unit(seconds * 1e9, ("ns", "µs", "ms"))


def _with_unit(value: float, units: tuple[str, ...]) -> str:
    power = 0
    while value >= 999.5 and power + 1 < len(units):
        value, power = value / 1000, power + 1
    digits = 0 if power == 0 or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f}\u00a0{units[power]}"
