"""A client of a running ComfyUI, and prompts to post to it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

TINY = "tiny (bundled)"
RUN_SECONDS = 120


class Rejected(Exception):
    """The server refused a prompt; `errors` holds what it says of each node."""

    def __init__(self, reply: dict[str, Any]):
        self.errors = {
            node["class_type"]: " ".join(f"{e['message']} {e['details']}" for e in node["errors"])
            for node in reply["node_errors"].values()
        }
        super().__init__(json.dumps(reply))


class Failed(Exception):
    """A node raised; the message is its exception's."""


class Graph(dict):
    """A prompt in the server's format, built node by node."""

    def add(self, class_type: str, **inputs) -> list:
        """Add a node; returns its first output. `output(node, n)` is another."""
        key = str(len(self) + 1)
        self[key] = {"class_type": class_type, "inputs": inputs}
        return [key, 0]


def output(node: list, slot: int) -> list:
    return [node[0], slot]


@dataclass
class Run:
    """What came back from one prompt."""

    base: Path
    prompt_id: str
    outputs: dict[str, Any] = field(default_factory=dict)
    executed: list[str] = field(default_factory=list)  # ids of the nodes that ran, cached ones not among them
    progress: list[tuple[str, int, int]] = field(default_factory=list)  # node, value, maximum
    previews: list[bytes] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)  # last text shown on a node
    shown: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # what a node's `ui` was, as it grew
    interrupted: bool = False

    def files(self, node: list, kind: str = "images") -> list[Path]:
        return [
            self.base / entry["type"] / entry["subfolder"] / entry["filename"] for entry in self.outputs[node[0]][kind]
        ]

    def latent(self, node: list) -> torch.Tensor:
        """The tensor that a SaveLatent node has saved."""
        return load_file(self.files(node, "latents")[0])["latent_tensor"]


class Client:
    """Talks to one server over HTTP and a websocket, as a browser does. `process` is the server's id."""

    def __init__(self, port: int, base: Path, log: Path, process: int):
        import websocket  # comes with comfy-cli

        self.address, self.base, self.log, self.process = f"127.0.0.1:{port}", base, log, process
        self.id = uuid.uuid4().hex
        self.socket = websocket.create_connection(f"ws://{self.address}/ws?clientId={self.id}", timeout=RUN_SECONDS)
        self.socket.send(json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}}))

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://{self.address}{path}") as reply:
            return json.load(reply)

    def post(self, path: str, data: dict[str, Any]) -> Any:
        request = urllib.request.Request(f"http://{self.address}{path}", json.dumps(data).encode(), method="POST")
        with urllib.request.urlopen(request) as reply:
            return json.loads(reply.read() or b"null")

    def options(self, node: str, name: str) -> list[str]:
        """The choices of a combo input."""
        inputs = self.get(f"/object_info/{node}")[node]["input"]
        spec = {**inputs.get("required", {}), **inputs.get("optional", {})}[name]
        return spec[1]["options"] if spec[0] == "COMBO" else spec[0]

    def submit(self, graph: Graph) -> Run:
        try:
            reply = self.post("/prompt", {"prompt": graph, "client_id": self.id})
        except urllib.error.HTTPError as error:
            raise Rejected(json.loads(error.read())) from None
        return Run(self.base, reply["prompt_id"])

    def run(self, graph: Graph, on_progress=None) -> Run:
        """Post a prompt and wait for its end. `on_progress(node, value)` is called as the server reports."""
        return self.wait(self.submit(graph), on_progress)

    def wait(self, run: Run, on_progress=None) -> Run:
        """Wait for the end of a prompt, the first of those that this client has queued. Raises `Failed`."""
        while not self._handle(run, self.socket.recv(), on_progress):
            pass
        run.outputs = self.get(f"/history/{run.prompt_id}")[run.prompt_id]["outputs"]
        return run

    def _handle(self, run: Run, message: str | bytes, on_progress) -> bool:
        """Note one message; whether it is the last."""
        if isinstance(message, bytes):
            kind = int.from_bytes(message[:4], "big")
            if kind == 4:  # a preview with metadata
                run.previews.append(message[8 + int.from_bytes(message[4:8], "big") :])
            elif kind == 3:  # a text on a node
                cut = 8 + int.from_bytes(message[4:8], "big")
                run.texts[message[8:cut].decode()] = message[cut:].decode()
            return False
        event, data = (json.loads(message)[key] for key in ("type", "data"))
        if event == "executed" and data["prompt_id"] in (None, run.prompt_id):  # None: not all of it yet
            run.shown.setdefault(data["node"], []).append(data["output"])
        if data.get("prompt_id") != run.prompt_id:
            return False
        if event == "executing" and data["node"] is None:
            return True  # after the end, when the history is there to be read
        if event == "executing":
            run.executed.append(data["node"])
        elif event == "progress":
            run.progress.append((data["node"], data["value"], data["max"]))
            if on_progress is not None:
                on_progress(data["node"], data["value"])
        elif event == "execution_error":
            raise Failed(f"{data['exception_type']}: {data['exception_message']}")
        elif event == "execution_interrupted":
            run.interrupted = True
        return False
