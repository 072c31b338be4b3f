"""The pack's nodes: what a user sees in the graph."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import migration
from .compare import Compare
from .conditioning import EncodePrompt
from .edit import Edit
from .example import ExampleScene, LoadImage
from .loaders import LoadEncoder, LoadLora, LoadMMDiT, LoadVAE
from .loop import BestOf, Reason
from .sampling import Guider, Sampler, Schedule
from .spatial import Camera, DrawBoxes, MoveObject, Orbit, RotateObject
from .speed import Speed
from .training import TrainLora
from .training_set import MakeTrainingSet
from .understanding import Ask, Locate, RewritePrompt

NODES = [
    LoadMMDiT,
    LoadVAE,
    LoadEncoder,
    LoadLora,
    LoadImage,
    ExampleScene,
    EncodePrompt,
    Sampler,
    Edit,
    BestOf,
    MoveObject,
    RotateObject,
    Camera,
    Orbit,
    DrawBoxes,
    Ask,
    Reason,
    RewritePrompt,
    Locate,
    Guider,
    Schedule,
    Speed,
    Compare,
    MakeTrainingSet,
    TrainLora,
]


class JoyImageExtension(ComfyExtension):
    async def on_load(self) -> None:
        await migration.register()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES
