"""Loaders: files, model folders and the bundled model as MODEL, VAE and JOYIMAGE_ENCODER."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from ..joyimage.checkpoints import inspect
from ..joyimage.checkpoints.namings import SOURCES
from ..joyimage.errors import CheckpointError, MissingFileError
from ..joyimage.settings import check_theta
from . import host
from .feedback import caught_warnings, told
from .inputs import blame, check
from .node import Node

TINY = "tiny (bundled)"
OWN_THETA = 0.0  # what the file says
LORAS = "loras"  # the host's folder for them
MODEL_FOLDERS = "diffusers"  # the host's place for models of several files
# A model's folder holds one of these: a file in Diffusers' layout, the encoder's folder in the original one.
MODEL_FOLDER_MARKS = ("model_index.json", "JoyAI-Image-Und")


@dataclass(frozen=True)
class Kind:
    """A kind of weights: the host's folder for it, and where to get a file for that folder."""

    folder: str
    sources: str

    def choices(self) -> list[str]:
        return [TINY, *folder_paths.get_filename_list(self.folder), *gguf_files(self.folder), *model_folders()]

    def path(self, choice: str) -> Path | None:
        """The file or folder of a choice, None for the bundled model. `MissingFileError` says where to get it."""
        if not isinstance(choice, str):  # graphs made outside the editor may hold anything
            raise MissingFileError(f"{choice!r:.80} is not the name of a file; choose one from the list")
        if choice == TINY:
            return None
        if file := folder_paths.get_full_path(self.folder, choice):
            return Path(file)
        for base in folder_paths.get_folder_paths(MODEL_FOLDERS):
            if choice in model_folders() and (folder := Path(base, choice)).is_dir():
                return folder
        raise MissingFileError(
            f"{choice}: not in models/{self.folder}. Download it from {self.sources}, put it into models/{self.folder} "
            f"and refresh the page; or put a whole model's folder into models/{MODEL_FOLDERS}"
        )

    def check(self, choice: str) -> bool | str:
        """For `validate_inputs`: says more than the host, which only finds that the value is not in the list."""
        try:
            self.path(choice)
        except MissingFileError as error:
            return str(error)
        return True

    def load(self, choice: str, load):
        """Call `load` with the path of a choice. A `CheckpointError` from it then also says what the file is."""
        path = self.path(choice)
        try:
            return load(path)
        except CheckpointError as error:
            raise type(error)(f"{error}\n\n{described(path) if path else ''}".rstrip()) from error


MMDIT = Kind("diffusion_models", SOURCES["mmdit"])
VAE = Kind("vae", SOURCES["vae"])
ENCODER = Kind("text_encoders", SOURCES["encoder"])


def described(path: Path) -> str:
    """What a file or folder is, in lines; empty where it cannot even be opened, which its error has said."""
    try:
        return str(inspect(path))
    except CheckpointError:
        return ""


def gguf_files(folder: str) -> list[str]:
    """GGUF files in the host's folder, which the host itself does not list."""
    bases = map(Path, folder_paths.get_folder_paths(folder))
    return sorted({file.relative_to(base).as_posix() for base in bases for file in base.rglob("*.gguf")})


def model_folders() -> list[str]:
    """Folders under models/diffusers in Diffusers' or the original layout, as paths from there."""
    found = set()
    for base in map(Path, folder_paths.get_folder_paths(MODEL_FOLDERS)):
        for mark in MODEL_FOLDER_MARKS:
            found.update(hit.parent.relative_to(base).as_posix() for hit in base.glob(f"*/{mark}"))
    return sorted(found)


class LoadMMDiT(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyImageLoadMMDiT",
            display_name="Load MMDiT (JoyImage)",
            category="JoyImage/loaders",
            description="The image model of JoyAI-Image (Edit, Edit-Plus or SpatialEdit).",
            search_aliases=["joyai", "unet loader", "load diffusion model", "checkpoint"],
            inputs=[
                io.Combo.Input(
                    "model",
                    options=MMDIT.choices(),
                    tooltip="A file in models/diffusion_models, or a model's folder in models/diffusers. "
                    "The bundled tiny model, to try everything with, knows small pictures of coloured solids alone.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(host.WEIGHT_DTYPES),
                    default="default",
                    optional=True,
                    advanced=True,
                    tooltip="What the weights are kept in. fp8 halves the memory of bf16 and costs some quality; "
                    "fp8_e4m3fn_fast also multiplies in fp8 on cards that can. Quantised files: leave default.",
                ),
                io.Float.Input(
                    "theta",
                    default=OWN_THETA,
                    min=0.0,
                    max=1_000_000.0,
                    step=1.0,
                    optional=True,
                    advanced=True,
                    tooltip="Base of the rotary embedding: 256 for SpatialEdit, whose files do not say it. "
                    "0 takes what the file says, or the published model's.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="For the Sampler (JoyImage), KSampler, LoRA loaders and other model nodes.")
            ],
        )

    @classmethod
    def validate_inputs(cls, model: str, theta: float = OWN_THETA) -> bool | str:
        found = blame("model", MMDIT.check(model))
        return blame("theta", check(check_theta, theta)) if found is True and theta else found

    @classmethod
    def execute(cls, model: str, weight_dtype: str = "default", theta: float = OWN_THETA) -> io.NodeOutput:
        return io.NodeOutput(MMDIT.load(model, lambda path: host.load_mmdit(path, weight_dtype, theta or None)))


class LoadVAE(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyImageLoadVAE",
            display_name="Load VAE (JoyImage)",
            category="JoyImage/loaders",
            description="The Wan 2.1 VAE for single images: faster than the video VAE, and tiles without seams.",
            search_aliases=["joyai", "vae loader", "wan vae"],
            inputs=[
                io.Combo.Input(
                    "vae",
                    options=VAE.choices(),
                    tooltip="A Wan 2.1 VAE in models/vae, in either naming, or a model's folder in models/diffusers.",
                )
            ],
            outputs=[io.Vae.Output(tooltip="For Encode Prompt (JoyImage), VAE Encode and VAE Decode.")],
        )

    @classmethod
    def validate_inputs(cls, vae: str) -> bool | str:
        return VAE.check(vae)

    @classmethod
    def execute(cls, vae: str) -> io.NodeOutput:
        return io.NodeOutput(VAE.load(vae, host.load_vae))


class LoadEncoder(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyImageLoadEncoder",
            display_name="Load Encoder (JoyImage)",
            category="JoyImage/loaders",
            description="The language model that reads prompts and pictures, and answers questions (Qwen3-VL).",
            search_aliases=["joyai", "clip loader", "text encoder", "qwen3-vl"],
            inputs=[
                io.Combo.Input(
                    "encoder",
                    options=ENCODER.choices(),
                    tooltip="A file in models/text_encoders, or a model's folder in models/diffusers.",
                )
            ],
            outputs=[
                host.ENCODER.Output(
                    display_name="encoder", tooltip="For Encode Prompt, Ask, Rewrite Prompt and Locate (JoyImage)."
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, encoder: str) -> bool | str:
        return ENCODER.check(encoder)

    @classmethod
    def execute(cls, encoder: str) -> io.NodeOutput:
        return io.NodeOutput(ENCODER.load(encoder, host.load_encoder))


class LoadLora(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyImageLoadLora",
            display_name="Load LoRA (JoyImage)",
            category="JoyImage/loaders",
            description="A LoRA on top of the image model, of any trainer: LoRA, DoRA, LoHa, LoKr, GLoRA, OFT.",
            search_aliases=["joyai", "lora loader", "lycoris", "peft", "adapter", "dora", "lokr"],
            inputs=[
                io.Model.Input("model", tooltip="From Load MMDiT (JoyImage), or from another Load LoRA before it."),
                io.Combo.Input(
                    "lora",
                    options=folder_paths.get_filename_list(LORAS),
                    tooltip="A file in models/loras. Keys that fit no layer of the model are listed on the node.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-100.0,
                    max=100.0,
                    step=0.01,
                    tooltip="1 as it was trained, 0 for no effect; negative values turn it round.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="For the Sampler (JoyImage), KSampler and other model nodes.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, lora: str) -> bool | str:
        try:
            lora_file(lora)
        except MissingFileError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, lora: str, **_: Any) -> Any:
        """A file that was trained on since is another one."""
        file = folder_paths.get_full_path(LORAS, lora)
        return file and Path(file).stat().st_mtime_ns

    @classmethod
    def execute(cls, model: Any, lora: str, strength: float = 1.0) -> io.NodeOutput:
        with caught_warnings() as problems:
            patched = host.add_lora(model, lora_file(lora), strength)
        return io.NodeOutput(patched, ui=told(cls.hidden.unique_id, "\n".join(problems)))


def lora_file(name: object) -> Path:
    """Raises `MissingFileError` for a name that is none of a file there; graphs from elsewhere may hold anything."""
    file = folder_paths.get_full_path(LORAS, name) if isinstance(name, str) else None
    if file is None:
        raise MissingFileError(
            f"{name!s:.80}: not in models/{LORAS}. Put the file there and refresh the page, or choose another"
        )
    return Path(file)
