"""Pictures of the graphs, taken from ComfyUI's own page."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from .build import Json
from .page import open_page, open_workflow

VIEW = 2400, 1800  # large, so that the editor draws all text
SIZE = 800, 600
QUALITY = 80
BARE = {
    "Comfy.UseNewMenu": "Disabled",
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Graph.CanvasMenu": False,
}
OLD_MENU = ".comfy-menu { display: none !important }"
FIT = """() => {
  const [items, canvas] = [[...app.graph.nodes, ...app.graph.groups], app.canvas];
  const edges = items.map(item => item.boundingRect ?? item.bounding ?? item._bounding);
  const left = Math.min(...edges.map(e => e[0])) - 30, top = Math.min(...edges.map(e => e[1])) - 30;
  const right = Math.max(...edges.map(e => e[0] + e[2])) + 30, bottom = Math.max(...edges.map(e => e[1] + e[3])) + 30;
  const [width, height] = [canvas.canvas.clientWidth, canvas.canvas.clientHeight];
  const scale = Math.min(width / (right - left), height / (bottom - top));
  canvas.ds.scale = scale;
  canvas.ds.offset[0] = (width / scale - left - right) / 2;
  canvas.ds.offset[1] = (height / scale - top - bottom) / 2;
  canvas.setDirty(true, true);
}"""


def save(files: Mapping[str, Json], server: str, folder: Path) -> None:
    """Write NAME.jpg for each of the graphs into `folder`."""
    with open_page(server, nodes_2=False, size=VIEW, settings=BARE) as page:
        page.add_style_tag(content=OLD_MENU)
        for name, workflow in files.items():
            open_workflow(page, workflow)
            page.evaluate(FIT)
            page.wait_for_timeout(1500)  # for its pictures to load and the canvas to be drawn
            picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB").resize(SIZE, Image.Resampling.LANCZOS)
            picture.save(folder / f"{name}.jpg", quality=QUALITY, optimize=True)
