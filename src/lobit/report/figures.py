"""Pictures that follow the page: drawn once by matplotlib, coloured by the reader's light or dark setting.

A drawing takes a `Theme` and returns a figure. `inline_svg` draws it in colours that stand for CSS variables and puts those in their place, so that a page's
own style colours it; `write_picture` writes a file that stands alone.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import matplotlib as mpl

from lobit.atomic import atomic_file
from lobit.errors import ConfigError

mpl.use("agg")
from matplotlib import pyplot as plt  # after the backend is chosen: the machine may have no screen

Drawing = Callable[["Theme"], Any]


@dataclass(frozen=True, slots=True)
class Theme:
    """The colours of a picture.

    Parameters
    ----------
    text, line, soft, page : str
        Text and axes; grids; faint areas; the background.
    good, bad : str
        Right and wrong.
    series : tuple of str
        Lines, bars and points, in order.
    ramp : tuple of str
        From low to high, for heat maps; text on it is ``page`` in its upper half.
    """

    text: str
    line: str
    soft: str
    page: str
    good: str
    bad: str
    series: tuple[str, ...]
    ramp: tuple[str, ...]


LIGHT = Theme(
    text="#1f2937",
    line="#d1d5db",
    soft="#f3f4f6",
    page="#ffffff",
    good="#047857",
    bad="#b91c1c",
    series=("#0369a1", "#c2410c", "#047857", "#7c3aed", "#be185d", "#6b7280"),
    ramp=("#eff6ff", "#bfdbfe", "#60a5fa", "#2563eb", "#1e3a8a"),
)
DARK = Theme(
    text="#e5e7eb",
    line="#374151",
    soft="#1f2937",
    page="#111827",
    good="#34d399",
    bad="#f87171",
    series=("#38bdf8", "#fb923c", "#34d399", "#a78bfa", "#f472b6", "#9ca3af"),
    ramp=("#172554", "#1e40af", "#3b82f6", "#93c5fd", "#eff6ff"),
)


def _variables(theme: Theme) -> dict[str, str]:
    named = {name: getattr(theme, name) for name in ("text", "line", "soft", "page", "good", "bad")}
    return named | {f"{kind}-{i}": color for kind in ("series", "ramp") for i, color in enumerate(getattr(theme, kind))}


_NAMES = tuple(_variables(LIGHT))
_TOKENS = {name: f"#01fe{index + 1:02x}" for index, name in enumerate(_NAMES)}  # colours that no drawing uses
_STAND_INS = Theme(
    **{name: _TOKENS[name] for name in ("text", "line", "soft", "page", "good", "bad")},
    series=tuple(_TOKENS[f"series-{i}"] for i in range(len(LIGHT.series))),
    ramp=tuple(_TOKENS[f"ramp-{i}"] for i in range(len(LIGHT.ramp))),
)


def css_variables() -> str:
    """Style rules that define the colours, for light and dark."""

    def block(theme: Theme) -> str:
        return " ".join(f"--{name}: {color};" for name, color in _variables(theme).items())

    dark = f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {block(DARK)} }} }}"  # paper is white
    return f":root {{ color-scheme: light dark; {block(LIGHT)} }}\n{dark}"


def inline_svg(draw: Drawing, title: str, *, text: bool = True) -> str:
    """An ``<svg>`` element for a page whose style has `css_variables`.

    Parameters
    ----------
    draw : callable
        Takes a `Theme` and returns a figure.
    title : str
        What it shows, for those who do not see it; another one for each picture of a page.
    text : bool
        Leave words to the reader's fonts, else draw them as outlines, for a file that must look the same everywhere.
    """
    drawn = _svg(draw(_STAND_INS), "none" if text else "path")
    for name, token in _TOKENS.items():
        drawn = drawn.replace(token, f"var(--{name})")
    body = _own_names(drawn[drawn.index("<svg") :], hashlib.sha256(title.encode()).hexdigest()[:8])
    sizes = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', body)
    assert sizes is not None
    return re.sub(
        r"<svg[^>]*>",
        lambda _: (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 {sizes[1]} {sizes[2]}" '
            f'role="img" style="max-width: {float(sizes[1]) * 4 / 3:.0f}px; width: 100%; height: auto"><title>{escape(title)}</title>'
        ),
        body,
        count=1,
    )


def _own_names(svg: str, prefix: str) -> str:
    """Names of a picture's parts, made its own: several pictures on a page must not share any."""
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))

    def rename(match: re.Match[str]) -> str:
        return f' id="{prefix}-{match[1]}"' if match[1] in used else ""

    svg = re.sub(r' id="([^"]*)"', rename, svg)
    return re.sub(r'(href="|url\()#', rf"\g<1>#{prefix}-", svg)


def write_picture(path: Path, draw: Drawing, title: str) -> None:
    """Write a picture as ``.svg``, which follows the reader's light or dark setting, or as ``.png``, which is light.

    Raises
    ------
    ConfigError
        For another ending.
    """
    if path.suffix == ".svg":
        svg = inline_svg(draw, title, text=False)
        end = svg.index(">") + 1
        data = (svg[:end] + f"<style>{css_variables()}</style>" + svg[end:]).encode()
    elif path.suffix == ".png":
        buffer = io.BytesIO()
        with _style(LIGHT):
            figure = draw(LIGHT)
            figure.savefig(buffer, format="png", dpi=160, bbox_inches="tight", facecolor=LIGHT.page)
        plt.close(figure)
        data = buffer.getvalue()
    else:
        raise ConfigError(f"a picture ends in .svg or .png, not {path.suffix!r}: {path}")
    with atomic_file(path) as stream:
        stream.write(data)


def axes(theme: Theme, title: str, x: str, y: str, size: tuple[float, float] = (5.2, 3.2)) -> tuple[Any, Any]:
    """A figure with one pair of axes in the theme's colours."""
    figure, plot = plt.subplots(figsize=size)
    dress(plot, theme)
    plot.set_title(title, loc="left", color=theme.text, fontsize=10, fontweight="bold")
    plot.set_xlabel(x)
    plot.set_ylabel(y)
    return figure, plot


def axes_row(theme: Theme, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    """A figure with plots side by side in the theme's colours, laid out so that no label is cut."""
    figure, plots = plt.subplots(1, columns, figsize=size, layout="constrained")
    for plot in plots.flat:
        dress(plot, theme)
    return figure, plots


def picture_grid(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    """A figure with ``rows`` times ``columns`` plots without axes, for images."""
    figure, plots = plt.subplots(rows, columns, figsize=size)
    for plot in plots.flat:
        plot.axis("off")
    return figure, plots


def dress(plot: Any, theme: Theme) -> None:
    """Give axes the theme's colours."""
    plot.figure.patch.set_alpha(0)
    plot.patch.set_alpha(0)
    plot.spines[["top", "right"]].set_visible(False)
    plot.spines[["left", "bottom"]].set_color(theme.text)
    plot.tick_params(which="both", colors=theme.text)
    plot.grid(color=theme.line, linewidth=0.6)
    plot.set_axisbelow(True)
    for text in (plot.title, plot.xaxis.label, plot.yaxis.label):
        text.set_color(theme.text)


def legend(plot: Any, theme: Theme, **settings: Any) -> None:
    """A legend without a frame."""
    plot.legend(frameon=False, labelcolor=theme.text, **settings)


def _svg(figure: Any, text: str) -> str:
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "lobit", "svg.fonttype": text}):  # the same picture has the same bytes
        figure.savefig(buffer, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None})
    plt.close(figure)
    return buffer.getvalue()


def _style(theme: Theme) -> Any:
    return mpl.rc_context({"text.color": theme.text, "axes.labelcolor": theme.text})
