"""Training sets in the graph: pictures and captions, encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
from comfy_api.latest import io
from PIL import Image
from torch import Tensor

from ..joyimage.errors import JoyImageError
from ..joyimage.images import from_batch
from ..joyimage.inputs import MAX_REFERENCES
from ..joyimage.training.caching import Samples, cache
from ..joyimage.training.checking import check as check_examples
from ..joyimage.training.examples import Example
from ..joyimage.training.layouts import read
from ..joyimage.training.settings import Training
from . import host
from .conditioning import base_size_input, side
from .feedback import show, told
from .inputs import all_pictures, blame, check, encoder_input, images_input, refuse, setting_input
from .node import Node

TRAINING_SET = io.Custom("JOYIMAGE_TRAINING_SET")  # the socket of a `TrainingSet`
FOLDER = "joyimage/training"  # within the host's folder for outputs
ENCODED = "encoded"  # within that: latents and contexts, which several sets share
CAPTIONS = "captions: one for all pictures, or as many as there are targets"
EMPTY = "connect targets, with images and captions, or give a folder that holds the training set"


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """What is trained on. The VAE is kept for the pictures that are made while training goes on."""

    samples: Samples
    examples: Sequence[Example]
    loss: str
    vae: Any


class MakeTrainingSet(Node):
    """Takes whole lists, so that pictures of different sizes make one set."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyImageTrainingSet",
            display_name="Training Set (JoyImage)",
            category="JoyImage/training",
            description="Pictures to learn, what they are made from, and captions: encoded once, and kept for the next "
            "time. What cannot be used is listed on the node, with the reason.",
            search_aliases=["dataset", "lora training", "fine-tune", "captions", "image pairs", "joyai"],
            is_input_list=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                encoder_input(),
                io.Vae.Input("vae", tooltip="From Load VAE (JoyImage)."),
                io.Image.Input(
                    "targets",
                    optional=True,
                    tooltip="The pictures to learn, as they should come out: a batch, or a list of any sizes.",
                ),
                images_input(
                    "The pictures that the targets are made from, in the same order; up to "
                    f"{MAX_REFERENCES} for each. Without any, pictures are learned from text alone."
                ),
                io.String.Input(
                    "captions",
                    default="",
                    multiline=True,
                    tooltip="The instruction that makes a target from its images, or what the picture shows: one for "
                    "all, or a line for each target. With a folder: for what has no caption of its own.",
                ),
                io.Mask.Input(
                    "masks", optional=True, tooltip="White where the loss counts, one for each target; with loss: mask."
                ),
                io.String.Input(
                    "folder",
                    default="",
                    optional=True,
                    tooltip="In place of targets: a folder of pictures with .txt captions, or a file that names them "
                    "(JSONL, CSV, TOML, YAML, tar). A path, or a name in ComfyUI's input folder.",
                ),
                io.String.Input(
                    "image_folders",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="With a folder of targets: the folders of what they are made from, a line for each, with "
                    "the same names of files.",
                ),
                io.String.Input(
                    "mask_folder",
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="With a folder of targets: the folder of their masks, with the same names of files.",
                ),
                base_size_input(),
                setting_input(
                    Training,
                    "loss",
                    "Where it counts: on the whole target, where a mask is white, or by difference where target and "
                    "image differ, for edits of a small part.",
                    optional=True,
                    advanced=True,
                ),
            ],
            outputs=[TRAINING_SET.Output(display_name="set", tooltip="For Train LoRA (JoyImage).")],
        )

    @classmethod
    def validate_inputs(cls, folder=("",), image_folders=("",), mask_folder=("",), images=None) -> bool | str:
        given = {"folder": folder[0], "image_folders": image_folders[0], "mask_folder": mask_folder[0]}
        if None in given.values():  # a link will bring it
            return True
        for name, text in given.items():
            if (problem := check(found_folders, text)) is not True:
                return blame(name, problem)
        named = next((name for name in ("image_folders", "mask_folder") if given[name].strip()), None)
        if named and not given["folder"].strip():
            return blame(named, "give the folder of the targets as well")
        return True

    @classmethod
    def fingerprint_inputs(cls, folder=("",), image_folders=("",), mask_folder=("",), **_: Any) -> Any:
        """What has changed in the folders is read again; what has not is not encoded again."""
        given = "\n".join(each[0] or "" for each in (folder, image_folders, mask_folder))
        return [(str(path), path.stat().st_mtime_ns) for base in found_folders(given) for path in files_in(base)]

    @classmethod
    def execute(
        cls, encoder, vae, captions, base_size, targets=None, images=None, masks=None, folder=("",),
        image_folders=("",), mask_folder=("",), loss=(Training.loss,), **surplus,
    ) -> io.NodeOutput:  # fmt: skip
        refuse(surplus)
        if folder[0].strip() and targets is not None:
            raise JoyImageError("both a folder and targets are given: leave one of them out")
        if folder[0].strip():
            examples = from_folders(folder[0], image_folders[0], mask_folder[0], captions[0])
        else:
            examples = from_pictures(targets or (), list((images or {}).values()), captions, masks)
        progress = Counter(cls.hidden.unique_id)
        base = side(base_size[0], encoder[0])
        checked = check_examples(examples, base, loss=loss[0], progress=progress)
        encoders = host.HostEncoders(encoder[0], vae[0])
        place = training_folder() / ENCODED
        samples = cache(encoders, checked.examples, place, base_size=base, loss=loss[0], progress=progress)
        made = TrainingSet(samples, checked.examples, loss[0], vae[0])
        lines = [str(checked), *(f"{count} of {sizes_note(sizes)}" for sizes, count in checked.buckets.items())]
        return io.NodeOutput(made, ui=told(cls.hidden.unique_id, "\n".join(lines)))


class Counter:
    """Progress of the checks and encodings on the node; stops where the user has asked to."""

    def __init__(self, node_id: str):
        self.node_id, self.bar = node_id, comfy.utils.ProgressBar(1, node_id=node_id)

    def __call__(self, what: str, done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        show(self.node_id, f"{what}: {done} of {total}")
        self.bar.update_absolute(done, max(total, 1))


def training_folder() -> Path:
    return Path(folder_paths.get_output_directory(), FOLDER)


def found_folders(text: str) -> list[Path]:
    """The files or folders that lines of text name, in ComfyUI's input folder unless the path is a whole one.

    Raises `JoyImageError` for what is not there.
    """
    found = []
    for line in filter(None, map(str.strip, text.splitlines())):
        path = Path(folder_paths.get_input_directory(), Path(line).expanduser())
        if not path.exists():
            raise JoyImageError(f"{path} does not exist; give a whole path, or a name in ComfyUI's input folder")
        found.append(path)
    return found


def files_in(base: Path) -> list[Path]:
    return sorted(path for path in base.rglob("*") if path.is_file()) if base.is_dir() else [base]


def from_folders(folder: str, image_folders: str, mask_folder: str, caption: str) -> list[Example]:
    (source, *_), masks = found_folders(folder), found_folders(mask_folder)
    return read(source, found_folders(image_folders), next(iter(masks), None), default_caption=caption.strip())


def from_pictures(
    targets: Sequence[Tensor],
    slots: Sequence[Sequence[Tensor]],
    captions: Sequence[str],
    masks: Sequence[Tensor] | None,
) -> list[Example]:
    """Picture k of each of the inputs makes example k. Raises `JoyImageError` unless there are equally many."""
    pictures = all_pictures(targets)
    if not pictures:
        raise JoyImageError(EMPTY)
    controls = [all_pictures(slot) for slot in slots]
    shown = None if masks is None else [mask for batch in masks for mask in mask_pictures(batch)]
    counts = {f"image {i}": len(slot) for i, slot in enumerate(controls, 1)}
    counts |= {} if shown is None else {"masks": len(shown)}
    for name, count in counts.items():
        if count != len(pictures):
            raise JoyImageError(f"{len(pictures)} targets, but {count} of {name}: give one for each target, in order")
    texts = list(captions) if len(captions) > 1 else captions[0].strip().splitlines()
    texts = texts * len(pictures) if len(texts) == 1 else texts
    if len(texts) != len(pictures):
        raise JoyImageError(f"{len(pictures)} targets, but {len(texts)} {CAPTIONS}")
    return [
        Example(picture, texts[k].strip(), tuple(slot[k] for slot in controls), None if shown is None else shown[k])
        for k, picture in enumerate(pictures)
    ]


def mask_pictures(masks: Tensor) -> list[Image.Image]:
    """A MASK (B, H, W) as grey pictures."""
    return [picture.convert("L") for picture in from_batch(masks[..., None])]


def sizes_note(sizes: Sequence[tuple[int, int]]) -> str:
    target, *controls = (f"{width} x {height}" for height, width in sizes)
    return f"{target} pixels" + (f" from {', '.join(controls)}" if controls else "")
