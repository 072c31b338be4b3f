"""A bar for each column's step, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

ROW, LEFT, WIDTH = 22, 380, 400  # pixels: of a bar's row, of the names, of the longest bar


def bars(title: str, rows: Sequence[tuple[str, float, str]]) -> str:
    """Rows are a name, a length in any unit, and what stands behind the bar."""
    longest = max((length for _, length, _ in rows), default=0) or 1
    lines = [f'<text x="8" y="18" font-weight="bold">{escape(title)}</text>']
    for i, (name, length, label) in enumerate(rows):
        top, width = 30 + i * ROW, WIDTH * length / longest
        lines.append(f'<text x="{LEFT - 8}" y="{top + 15}" text-anchor="end">{escape(name)}</text>')
        lines.append(f'<rect x="{LEFT}" y="{top + 3}" width="{width:.1f}" height="{ROW - 6}" fill="#4878a8"/>')
        lines.append(f'<text x="{LEFT + width + 6:.1f}" y="{top + 15}">{escape(label)}</text>')
    size = f'width="{LEFT + WIDTH + 120}" height="{40 + ROW * len(rows)}"'
    style = 'font-family="sans-serif" font-size="13"'
    lines.insert(0, '<rect width="100%" height="100%" fill="white"/>')
    return "\n".join((f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>', *lines, "</svg>\n"))
