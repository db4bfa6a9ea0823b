"""Drawings by hand: SVG elements in the colours of lobit's pictures, for diagrams that no plotting library makes."""

from __future__ import annotations

from html import escape

from lobit.report.figures import css_variables

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif"


class Drawing:
    """Elements in the order they are drawn; `svg` makes a file that stands alone and follows the reader's light or dark setting."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.parts: list[str] = []

    def rect(self, x: float, y: float, width: float, height: float, *, fill: str = "none", stroke: str = "none", radius: float = 4) -> None:
        """A rectangle; colours are names of the theme, such as ``series-0``."""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}" fill="{_color(fill)}" stroke="{_color(stroke)}"/>'
        )

    def line(self, points: list[tuple[float, float]], color: str, *, width: float = 1.5, dash: str = "") -> None:
        """A line through points."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        extra = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="{_color(color)}" stroke-width="{width:g}"{extra}/>')

    def circle(self, x: float, y: float, radius: float, *, fill: str, stroke: str = "none", width: float = 1.5) -> None:
        """A circle."""
        self.parts.append(
            f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{_color(fill)}" stroke="{_color(stroke)}" stroke-width="{width:g}"/>'
        )

    def text(
        self, x: float, y: float, text: str, color: str = "text", *, size: float = 14, anchor: str = "start", bold: bool = False
    ) -> None:
        """A line of text on the base line y."""
        weight = ' font-weight="600"' if bold else ""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" fill="{_color(color)}" font-size="{size:g}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'
        )

    def svg(self, title: str) -> str:
        """The file; ``title`` says what it shows to those who do not see it."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:g} {self.height:g}" role="img" font-family="{FONT}" '
            f'style="max-width: {self.width:g}px; width: 100%; min-width: 600px; height: auto">'
        )
        ground = f'<rect class="background" width="{self.width:g}" height="{self.height:g}" rx="6" fill="{_color("page")}"/>'
        return "\n".join([head, f"<title>{escape(title)}</title>", f"<style>{css_variables()}</style>", ground, *self.parts, "</svg>\n"])


def _color(name: str) -> str:
    return name if name == "none" else f"var(--{name})"
