"""What mkdocs does for lobit's site beyond its settings: pages that exist, and pictures that follow the reader's light or dark choice."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import Any


def on_config(config: Any) -> Any:
    """Leave out of the menu what has no page."""
    config.nav = _existing(config.nav, Path(config.docs_dir))
    return config


def _existing(entries: list[Any], folder: Path) -> list[Any]:
    kept: list[Any] = []
    for entry in entries:
        title, target = next(iter(entry.items())) if isinstance(entry, dict) else (None, entry)
        if isinstance(target, list):
            if inner := _existing(target, folder):
                kept.append({title: inner})
        elif (folder / target).exists():
            kept.append(entry)
    return kept


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Put the site's own pictures into the page, where its colour scheme reaches them."""
    folder = (Path(config.docs_dir) / page.file.src_path).parent

    def inline(match: re.Match[str]) -> str:
        tag = match[0]
        source, label = (re.search(rf'{name}="([^"]*)"', tag) for name in ("src", "alt"))
        picture = folder / source[1] if source else None
        if picture is None or not picture.is_file():
            return tag
        return (
            f'<div class="picture" role="img" aria-label="{escape(label[1]) if label else ""}">{inline_picture(picture.read_text())}</div>'
        )

    return re.sub(r'<img\b[^>]*\bsrc="[^":]*\.svg"[^>]*>', inline, html)


def inline_picture(svg: str) -> str:
    """A picture that stands alone, its light and dark colours bound to the site's two schemes instead of the system's."""
    svg = svg[svg.index("<svg") :].replace(
        '<style type="text/css">*{', '<style type="text/css">.picture *{'
    )  # matplotlib's rule is for its own
    svg = re.sub(r"@media [^{}]*\(prefers-color-scheme: dark\) \{ :root \{([^{}]*)\} \}", r"[data-md-color-scheme=slate] {\1}", svg)
    return re.sub(r":root \{([^{}]*)\}", r"[data-md-color-scheme=default] {\1}", svg).replace("color-scheme: light dark;", "")
