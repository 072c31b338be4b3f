"""`python -m tools.docs`: takes a picture of every node for its help page, in each of the help's languages.

It needs a running ComfyUI with this pack, Chromium, Playwright (`pip install playwright`) and a Chinese font, and
writes web/docs/images/NODE.png and web/docs/images/zh/NODE.png.
"""

from __future__ import annotations

import argparse
import io
import json
import urllib.request
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page

from ..workflows.page import open_page

IMAGES = Path(__file__).parents[2] / "web" / "docs" / "images"
FOLDERS = {"en": IMAGES, "zh": IMAGES / "zh"}  # by the frontend's name of the language
PREFIX = "JoyImage"  # of this pack's nodes
EXAMPLE = "example: coffee"  # comes with the pack
VIEW = 1000, 1400
SCALE = 1.6  # of the graph in the picture: sharp on screens of high density too
MARGIN = 8  # pixels
COLOURS = 256
BARE = {
    "Comfy.UseNewMenu": "Disabled",
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Graph.CanvasMenu": False,
    "Comfy.Canvas.SelectionToolbox": False,
}
OLD_MENU = ".comfy-menu { display: none !important }"

# What the nodes are shown with, where their defaults say little.
VALUES: dict[str, dict[str, Any]] = {
    "JoyImageEncodePrompt": {"prompt": "Turn the cup and the saucer dark blue."},
    "JoyImageMoveObject": {"object": "silver spoon", "box": '{"x": 0.74, "y": 0.5, "w": 0.2, "h": 0.42}'},
    "JoyImageRotateObject": {"object": "red cup", "view": "front left"},
    "JoyImageCamera": {"yaw": 45, "pitch": -15},
    "JoyImageAsk": {"question": "What is in this picture, and where is it? Name materials."},
    "JoyImageRewritePrompt": {"prompt": "make it look like morning"},
    "JoyImageDrawBoxes": {
        "boxes": '[{"x": 0.27, "y": 0.03, "w": 0.43, "h": 0.77}, {"x": 0.53, "y": 0.56, "w": 0.16, "h": 0.27}]'
    },
    "JoyImageLoadLora": {"lora": "watercolour.safetensors", "strength": 0.8},
    "JoyImageBestOf": {"prompt": "Put a croissant on the saucer, next to the spoon."},
    "JoyImageReason": {"question": "Seen from the left, is the spoon in front of the cup or behind it?"},
    "JoyImageLocate": {"object": "the empty table to the right of the saucer"},
    "JoyImageTrainingSet": {"captions": "Turn the picture into a watercolour."},
    "JoyImageTrainLora": {"steps": 800, "sample_every": 200},
}

RUN = {"JoyImageCompare"}  # these show nothing before

# Puts the node alone into view, with all of its inputs; its images come from Load Image (JoyImage), out of the view.
SHOW = """async ({type, values, example, scale}) => {
  // Not graph.clear(): the editor would give the next node, which has the same id, the values of the last.
  await app.loadGraphData({last_node_id: 0, last_link_id: 0, nodes: [], links: [], groups: [], version: 0.4});
  const {graph, canvas} = app;
  const images = node => node.inputs.flatMap((input, slot) => input.type === 'IMAGE' ? [slot] : []);
  const node = LiteGraph.createNode(type);
  graph.add(node);
  for (const [name, value] of Object.entries(values)) {
    const widget = node.widgets.find(widget => widget.name === name);
    const choices = widget.options?.values;
    if (Array.isArray(choices) && !choices.includes(value)) choices.push(value);  // a file that is not here
    widget.value = value;
    widget.callback?.(value);
  }
  let [shown, sources] = [node, images(node)];
  if (!sources.length && node.outputs[0]?.name === 'instruction') {  // its view shows what the prompt will be about
    shown = LiteGraph.createNode('JoyImageEncodePrompt');
    shown.pos = [-2000, 0];
    graph.add(shown);
    node.connect(0, shown, 'prompt');
    sources = images(shown).slice(0, 1);
  }
  for (const [i, slot] of sources.entries()) {
    const [source, other] = ['JoyImageLoadImage', 'ImageInvert'].map(name => LiteGraph.createNode(name));
    for (const far of [source, other]) {
      far.pos = [-2000, 0];
      graph.add(far);
    }
    source.widgets[0].value = example;
    source.widgets[0].callback?.(example);
    source.connect(0, other, 0);
    (i ? other : source).connect(0, shown, slot);  // a second image differs from the first
  }
  node.showAdvanced = true;
  node.pos = [0, 0];
  const [width, height] = node.computeSize();
  node.setSize([Math.max(width, 340), height]);
  canvas.ds.scale = scale;
  canvas.ds.offset[0] = 20;
  canvas.ds.offset[1] = LiteGraph.NODE_TITLE_HEIGHT + 20;
  canvas.links_render_mode = LiteGraph.HIDDEN_LINK;
  canvas.deselectAll();
  canvas.setDirty(true, true);
}"""
EDGES = """margin => {
  const [node, {ds, canvas}] = [app.graph.nodes[0], app.canvas];
  const [left, top] = [canvas.getBoundingClientRect().left, canvas.getBoundingClientRect().top];
  const [x, y, width, height] = node.boundingRect;
  return {
    x: left + (x + ds.offset[0]) * ds.scale - margin, y: top + (y + ds.offset[1]) * ds.scale - margin,
    width: width * ds.scale + 2 * margin, height: height * ds.scale + 2 * margin,
  };
}"""


def photograph(page: Page, node: str) -> Image.Image:
    """The node as the editor draws it, with all of its inputs."""
    page.evaluate(SHOW, {"type": node, "values": VALUES.get(node, {}), "example": EXAMPLE, "scale": SCALE})
    if node in RUN:
        page.evaluate("() => app.queuePrompt(0)")
    page.wait_for_timeout(1500)  # for its image to load and the canvas to be drawn
    shot = page.screenshot(clip=page.evaluate(EDGES, MARGIN))
    return Image.open(io.BytesIO(shot)).convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.docs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--server", default="http://127.0.0.1:8188", help="address of ComfyUI (%(default)s)")
    options = parser.parse_args()
    with urllib.request.urlopen(f"{options.server}/object_info") as reply:
        nodes = [name for name in json.load(reply) if name.startswith(PREFIX)]
    for locale, folder in FOLDERS.items():
        folder.mkdir(parents=True, exist_ok=True)
        with open_page(options.server, nodes_2=False, size=VIEW, settings={**BARE, "Comfy.Locale": locale}) as page:
            page.add_style_tag(content=OLD_MENU)
            for node in nodes:
                photograph(page, node).quantize(COLOURS).save(folder / f"{node}.png", optimize=True)


main()
