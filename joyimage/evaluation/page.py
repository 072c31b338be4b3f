"""The report as one HTML file that needs nothing else: small pictures inside it, what failed first."""

from __future__ import annotations

import base64
import io
from html import escape

from PIL import Image, ImageDraw

from ..errors import JoyImageError, counted
from .report import Report, Row, Shown, rounded, said

SIDE = 200  # pixels of a picture's longer side
QUALITY = 82  # of JPEG
MOST_ROWS = 500  # that the page shows; a picture takes about 8 KB

HEAD = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }}
body {{ max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }}
.groups {{ display: flex; flex-wrap: wrap; gap: 1rem 3rem; align-items: flex-start; }}
table {{ border-collapse: collapse; }}
caption {{ text-align: left; font-weight: 600; font-size: 1.1rem; }}
td, th {{ padding: .1rem .8rem .1rem 0; text-align: left; vertical-align: top; font-weight: 400; }}
th {{ color: #888; }}
article {{ display: flex; flex-wrap: wrap; gap: .8rem; padding: .8rem 0; border-top: 1px solid #8886; }}
article > div {{ flex: 1 1 16rem; min-width: 14rem; overflow-wrap: anywhere; }}
figure {{ margin: 0; }}
figure img {{ display: block; max-width: {side}px; }}
figcaption, .quiet {{ color: #888; font-size: .85rem; }}
.note {{ color: #c33; }}
.prompt {{ white-space: pre-line; }}
</style>
"""


def page(report: Report) -> str:
    """The whole page. A picture that cannot be read is named in its place."""
    rows = report.worst_first
    parts = [
        HEAD.format(title=escape(report.benchmark), side=SIDE),
        f"<h1>{escape(report.benchmark)}</h1>",
        _figures(report),
    ]
    parts.append(f"<h2>{counted(len(rows), 'item')}</h2>")
    if len(rows) > MOST_ROWS:
        parts.append(f'<p class="quiet">The first {MOST_ROWS}; report.json has them all.</p>')
    parts += [_article(row) for row in rows[:MOST_ROWS]]
    return "\n".join([*parts, "</html>", ""])


def _figures(report: Report) -> str:
    """A small table for each group, and one that says by what they were measured."""
    tables = [_table(named, group) for group, named in rounded(report.figures).items()]
    about = {name: _shown(rounded(value)) for name, value in report.about.items()}
    return f'<div class="groups">{"".join(tables)}</div><h2>How it was measured</h2>{_table(about)}'


def _table(values: dict, caption: str = "") -> str:
    lines = "".join(_line((name, said(value))) for name, value in values.items())
    return f"<table><caption>{escape(caption)}</caption>{lines}</table>"


def _line(cells: tuple[str, str]) -> str:
    return f"<tr><th>{escape(cells[0])}</th><td>{escape(cells[1])}</td></tr>"


def _article(row: Row) -> str:
    goodness = "" if row.goodness is None else f" · {row.goodness:.3f}"
    values = "<br>".join(f"{escape(name)}: {escape(_shown(value))}" for name, value in rounded(row.values).items())
    note = f'<div class="note">{escape(row.note)}</div>' if row.note else ""
    text = f'<div class="prompt">{escape(row.text)}</div>'
    words = f'<div><b>{escape(row.name)}</b>{goodness}{note}{text}<div class="quiet">{values}</div></div>'
    return f"<article>{words}{''.join(map(_figure, row.pictures))}</article>"


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return said(value)


def _figure(shown: Shown) -> str:
    title = escape(shown.title)
    try:
        picture = shown.load()
    except (JoyImageError, OSError) as error:
        return f'<figure><figcaption>{title}</figcaption><span class="note">{escape(str(error))}</span></figure>'
    return (
        f'<figure><img alt="{title}" src="{data_uri(picture, shown.boxes)}"><figcaption>{title}</figcaption></figure>'
    )


def data_uri(picture: Image.Image, boxes=()) -> str:
    """A small JPEG of a picture, with boxes in its own pixels drawn on it, as the page holds it."""
    scale = SIDE / max(picture.size)
    small = picture.convert("RGB").resize(
        (max(1, round(picture.width * scale)), max(1, round(picture.height * scale))),
        Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS,
    )
    draw = ImageDraw.Draw(small)
    for box, colour in boxes:
        left, top, right, bottom = (side * scale for side in box)
        draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=2)
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
