"""ComfyUI's editor in a browser, worked as a user does: with mouse and keys."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from tools.client import Client

LOAD = 60_000  # milliseconds, for the page
OPENING = 1000  # milliseconds in which the page restores or makes its first workflow
PERSISTED = 1500  # milliseconds in which it writes the open workflow to its storage
SETTLE = 150  # milliseconds: the widgets look around every 100, and undo takes its steps 50 apart
EMPTY = {"last_node_id": 0, "last_link_id": 0, "version": 0.4, "nodes": [], "links": [], "groups": [], "extra": {}}
ADD = """([type, x, y, widgets]) => {
    const node = LiteGraph.createNode(type);
    node.pos = [x, y];
    app.graph.add(node);
    for (const widget of node.widgets ?? []) if (widget.name in widgets) widget.value = widgets[widget.name];
    return node.id;
}"""


@dataclass
class Editor:
    page: Any  # playwright's
    client: Client
    nodes_2: bool  # the new renderer
    complaints: list[str] = field(default_factory=list)  # what the page has said that concerns us

    def clear(self) -> None:
        self.load(EMPTY)
        self.view()

    def load(self, workflow: dict[str, Any]) -> None:
        self.page.evaluate("async workflow => { await app.loadGraphData(workflow) }", workflow)
        self.settle()

    def save(self) -> dict[str, Any]:
        return json.loads(self.page.evaluate("JSON.stringify(app.rootGraph.serialize())"))

    def view(self, scale: float = 1, x: float = 80, y: float = 80) -> None:
        """Zoom, and put the graph's origin at a place of the page."""
        script = "([scale, x, y]) => { Object.assign(app.canvas.ds, {scale, offset: [x / scale, y / scale]}); "
        self.page.evaluate(script + "app.canvas.setDirty(true, true) }", [scale, x, y])
        self.settle()

    def add(self, kind: str, x: float = 0, y: float = 0, **widgets) -> int:
        return self.page.evaluate(ADD, [kind, x, y, widgets])

    def connect(self, source: int, slot: int, target: int, name: str) -> None:
        script = "([a, slot, b, name]) => { const [from, to] = [a, b].map(id => app.graph.getNodeById(id)); "
        self.page.evaluate(
            script + "from.connect(slot, to, to.inputs.findIndex(i => i.name === name)) }", [source, slot, target, name]
        )

    def opened(self) -> None:
        """Wait until the page is up with what it opens by itself."""
        from tools.workflows.page import READY

        self.page.wait_for_function(READY, timeout=LOAD)
        self.page.wait_for_function("app.extensionManager.workflow.activeWorkflow?.changeTracker", timeout=LOAD)
        self.page.wait_for_timeout(OPENING)

    def reload(self) -> None:
        """The page anew, as with F5."""
        self.page.reload(timeout=LOAD)
        self.opened()

    def ready(self) -> None:
        """Let undo begin from here."""
        self.settle()
        self.page.evaluate("app.extensionManager.workflow.activeWorkflow.changeTracker.captureCanvasState()")
        self.settle()

    def settle(self) -> None:
        self.page.wait_for_timeout(SETTLE)

    def prompt(self) -> dict[str, Any]:
        """What the page would post to run its graph."""
        return json.loads(self.page.evaluate("async () => JSON.stringify((await app.graphToPrompt()).output)"))

    def inputs_of(self, node: int) -> dict[str, Any]:
        """A node's inputs in the page's graph, posted or not."""
        script = "id => Object.fromEntries(app.graph.getNodeById(id).widgets.map(w => [w.name, w.value]))"
        return self.page.evaluate(script, node)

    def inputs(self, kind: str) -> dict[str, Any]:
        """The inputs, as they would be posted, of the one node of a class."""
        [found] = [node["inputs"] for node in self.prompt().values() if node["class_type"] == kind]
        return found

    def at(self, selector: str, x: float = 0.5, y: float = 0.5) -> tuple[float, float]:
        """A place of the page, in fractions of an element."""
        box = self.page.locator(selector).first.bounding_box()
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    def drag(self, start: tuple[float, float], *stops: tuple[float, float], release: bool = True) -> None:
        mouse = self.page.mouse
        mouse.move(*start)
        mouse.down()
        for stop in stops:
            mouse.move(*stop, steps=3)
        if release:
            mouse.up()
            self.settle()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)
            self.settle()

    def queue(self) -> int:
        """Queue the graph with the page's own button; the number of runs before."""
        before = len(self.client.get("/history"))
        self.page.get_by_test_id("queue-button").click()
        return before

    def finish(self, before: int, patience: int = 1) -> None:
        """Wait for the end of what was queued; `patience` is how many times as long as most of it takes."""
        for _ in range(240 * patience):
            if len(self.client.get("/history")) > before:
                break
            self.settle()
        [*_, last] = self.client.get("/history").values()
        assert last["status"]["status_str"] == "success", last["status"]
        self.settle()

    def run(self, patience: int = 1) -> None:
        self.finish(self.queue(), patience)
