"""`convert`: weights from any layout and format into another, tensor by tensor.

Names, shapes and formats are settled from the headers. Then each tensor is read, quantised, written and let go, so that
the peak of memory is the largest tensor and a little more. The same weights make the same file, whatever layout they
came from.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..atomic import check_name
from ..config import MMDiTConfig, WanVAEConfig
from ..errors import CheckpointError, JoyImageError
from ..quantisation.recipes import SAME, SAME_GGUF, Conversion, Recipe, conversion, restored
from ..settings import NATIVE_SHIFT, NATIVE_STEPS
from .companions import METADATA
from .configs import QUANTISED_DTYPE, config_of
from .empty import empty_encoder
from .files import existing
from .folders import BASE_SIZE_KEY, SHIFT_KEY, STEPS_KEY, Source, open_component, open_found, own_shift, own_steps
from .qwen import released_config
from .shapes import compare, expected_shapes
from .vae_keys import original_to_diffusers
from .weights import RELEASE_BYTES
from .write import Entry, Writer, check_room

# Where the parts of a model lie in a folder of each layout: what ComfyUI's `models` folder and Diffusers expect.
PLACES: dict[str, dict[str, str]] = {
    "comfy": {
        "mmdit": "diffusion_models/joyimage_mmdit",
        "vae": "vae/joyimage_vae",
        "encoder": "text_encoders/joyimage_encoder",
    },
    "diffusers": {
        "mmdit": "transformer/diffusion_pytorch_model",
        "vae": "vae/diffusion_pytorch_model",
        "encoder": "text_encoder/model",
    },
}
TEXT_SUFFIXES = (".json", ".txt", ".jinja")  # of the files that a tokenizer, processor or scheduler consists of
NOT_COPIED = ("config.json", "generation_config.json")  # what tells of weights beside a tokenizer
# What GGUF files say they are. ComfyUI-GGUF refuses what it does not know, and takes the Wan transformer's for this
# one: published files say so too.
ARCHITECTURES = {"mmdit": "wan", "encoder": "qwen3vl"}
GGUF_KEY = "general.architecture"  # which every GGUF file has


@dataclass(frozen=True)
class Written:
    """A file that `convert` wrote. `formats` counts its tensors by type, `kept` the reasons not to quantise some."""

    part: str
    path: str
    bytes: int
    formats: dict[str, int]
    kept: dict[str, int]

    def __str__(self) -> str:
        formats = ", ".join(f"{count} {name}" for name, count in self.formats.items())
        lines = [f"{self.part}: {self.path}", f"  {self.bytes / 2**20:.1f} MiB, tensors: {formats}"]
        return "\n".join(lines + [f"  {count} kept: {reason}" for reason, count in self.kept.items()])


def convert(
    path: str | Path, output: str | Path, *, format: str | None = None, layout: str = "comfy", progress: bool = False
) -> list[Written]:
    """Write the weights in a file, part or model folder in another format and layout; returns what was written.

    `output` is a file, ending in .safetensors (.gguf for GGUF), if there is one part; else a folder, which gets each
    part where the layout has it, with its `config.json` and the tokenizer where there are such. `layout` is "comfy" or
    "diffusers", `format` one of `recipes.CONVERSIONS`; without one every weight stays as it is, quantised or not. A VAE
    is never quantised. An existing file is replaced once the new one is complete and has been read back.
    Raises `CheckpointError` for weights that would not load, or bytes that do not read back; `JoyImageError` for an
    output that cannot be.
    """
    path, output, wanted = existing(path), Path(output).expanduser(), conversion(format) if format else SAME
    if layout not in PLACES:
        raise JoyImageError(f"unknown layout {layout!r}; choose one of {', '.join(PLACES)}")
    parts, tokenizer = open_found(path)
    if not parts:
        raise CheckpointError(f"{path}: holds no weights of JoyImage; `joyimage inspect` says what it is")
    single = bool(output.suffix) and not output.is_dir()
    if output.exists() and output.samefile(path):
        raise JoyImageError(f"{output}: is what to convert; give another name for the output")
    if single and len(parts) > 1:
        raise JoyImageError(f"{path}: holds {', '.join(parts)}; give a folder for the output, not {output.name}")
    planned = []
    for part, source in parts.items():
        contents = contents_of(source, wanted, layout)
        target = output if single else output / f"{PLACES[layout][part]}.{contents.file_type}"
        planned.append((contents, _checked_target(target, contents)))
    check_room(output, sum(contents.nbytes for contents, _ in planned))
    written = []
    for contents, target in planned:
        beside = layout == "diffusers" and not single
        written.append(contents.write(target, None if beside else needed_config(contents.source), progress))
        if beside:
            text = json.dumps(full_config(contents.source), indent=2)
            (target.parent / "config.json").write_text(f"{text}\n", encoding="utf-8")
    if not single:
        _copy_companions(path, tokenizer, output, layout)
    return written


def _checked_target(target: Path, contents: Contents) -> Path:
    check_name(target)
    if target.suffix != f".{contents.file_type}":
        kept = " (a VAE is not quantised)" if contents.source.component == "vae" else ""
        raise JoyImageError(f"{target}: the output is a {contents.file_type} file{kept}; name it .{contents.file_type}")
    if any(target.exists() and target.samefile(file) for file in contents.source.weights.files):
        raise JoyImageError(f"{target}: is a file to convert; give another name for the output")
    return target


@dataclass(frozen=True)
class Contents:
    """What a component's file will hold: for each of our names its name there and the recipe."""

    source: Source
    file_type: str
    names: dict[str, str]
    recipes: dict[str, Recipe]

    @property
    def nbytes(self) -> int:
        """Of its tensors, as they will be written."""
        return sum(piece.nbytes for recipe in self.recipes.values() for piece in recipe.pieces)

    def write(self, target: Path, config: Mapping[str, Any] | None, progress: bool) -> Written:
        """Write the file, with `config` in its header, and read it back."""
        entries = [
            Entry(self.names[name] + piece.suffix, piece.type, piece.shape, piece.nbytes)
            for name, recipe in self.recipes.items()
            for piece in recipe.pieces
        ]
        size = 2 * sum(entry.nbytes for entry in entries)  # written and read back
        with (
            tqdm(total=size, disable=not progress, unit="B", unit_scale=True, desc=target.name) as bar,
            Writer(target, entries, self._metadata(config), self.file_type) as writer,
        ):
            self._copy(writer, bar)
            writer.finish(bar)
        formats = Counter(entry.type for entry in entries)
        kept = Counter(recipe.kept for recipe in self.recipes.values() if recipe.kept)
        return Written(self.source.component, str(target), target.stat().st_size, dict(formats), dict(kept))

    def _copy(self, writer: Writer, bar: tqdm) -> None:
        """Read, encode and write, opening the source anew now and then: what was read of it counts as memory."""
        source, read = self.source, 0
        for name, recipe in self.recipes.items():
            if read > RELEASE_BYTES:
                source.weights.release()
                source, read = open_component(source.path, source.component).fitted(source.known), 0
            read += source.info[name].nbytes
            for piece, tensor in zip(recipe.pieces, recipe.encode(source.read(name)), strict=True):
                writer.write(self.names[name] + piece.suffix, tensor)
                bar.update(piece.nbytes)

    def _metadata(self, config: Mapping[str, Any] | None) -> dict[str, str]:
        """The source's own, with what layers are quantised as, where ComfyUI looks for it, and the configuration."""
        own = self.source.weights.metadata
        added = {BASE_SIZE_KEY: own[BASE_SIZE_KEY]} if BASE_SIZE_KEY in own else {}
        if self.source.component == "mmdit" and (shift := own_shift(self.source)) != NATIVE_SHIFT:
            added[SHIFT_KEY] = str(shift)  # the file may leave the folder whose scheduler says it
        if self.source.component == "mmdit" and (steps := own_steps(self.source)) != NATIVE_STEPS:
            added[STEPS_KEY] = str(steps)
        if config:
            added["config"] = json.dumps(config)
        if self.file_type == "gguf":
            return {GGUF_KEY: ARCHITECTURES[self.source.component], **added}
        layers = {
            self.names[name].removesuffix(".weight"): recipe.settings
            for name, recipe in self.recipes.items()
            if recipe.settings
        }
        if layers:
            added[METADATA] = json.dumps({"format_version": "1.0", "layers": layers})
        kept = {} if GGUF_KEY in own else {k: v for k, v in own.items() if k not in ("config", METADATA)}
        return kept | ({"format": "pt"} | added if added else {})  # transformers refuses metadata without a format


def contents_of(source: Source, wanted: Conversion, layout: str) -> Contents:
    """Settle names and recipes. Raises `CheckpointError` for weights that would not load."""
    component, expected = source.component, expected_shapes(source)
    if difference := str(compare(expected, source)):
        raise CheckpointError(f"{source.path}: would not load: {difference}")
    source = source.fitted(expected)
    whole = [name for name, info in source.info.items() if not info.floating]
    if whole:
        name = source.info[whole[0]].format.name
        raise CheckpointError(f"{source.path}: would not load: {whole[0]} is {name} without scale")
    if component == "vae" and (wanted.recipes or wanted.file_type == "gguf"):
        wanted = SAME
    if wanted is SAME and GGUF_KEY in source.weights.metadata and component != "vae":
        wanted = SAME_GGUF
    recipes = {}
    for name, info in source.info.items():
        if info.quantised and wanted is (SAME_GGUF if info.format.ggml else SAME):
            recipes[name] = restored(info.format, info.shape)
        else:
            dtype = QUANTISED_DTYPE if info.quantised else info.format.name
            recipes[name] = wanted.recipe(component, name, info.shape, dtype)
    renamed = original_to_diffusers(source.info) if (component, layout) == ("vae", "diffusers") else {}
    return Contents(source, wanted.file_type, {name: renamed.get(name, name) for name in source.info}, recipes)


# -- configurations ---------------------------------------------------------------------------------------------------


def full_config(source: Source) -> dict[str, Any]:
    """The `config.json` that Diffusers or transformers want: the one that came with the weights, else one made up."""
    wanted = "text_config" if source.component == "encoder" else "_class_name"
    if wanted in source.config:
        return source.config
    if source.component == "encoder":
        return {"architectures": ["Qwen3VLForConditionalGeneration"], **released_config(source.shapes)}
    return DIFFUSERS_CONFIGS[source.component](config_of(source))


def _mmdit_config(config: MMDiTConfig) -> dict[str, Any]:
    return {
        "_class_name": "JoyImageEditTransformer3DModel",
        "patch_size": config.patch_size,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "hidden_size": config.hidden_size,
        "num_attention_heads": config.num_heads,
        "text_dim": config.text_dim,
        "mlp_width_ratio": config.mlp_size / config.hidden_size,
        "num_layers": config.num_layers,
        "rope_dim_list": config.rope_dims,
        "theta": int(config.theta),
    }


def _vae_config(config: WanVAEConfig) -> dict[str, Any]:
    return {
        "_class_name": "AutoencoderKLWan",
        "base_dim": config.base_dim,
        "dim_mult": config.dim_mult,
        "num_res_blocks": config.num_res_blocks,
        "z_dim": config.z_dim,
        "temperal_downsample": [level > 0 for level in range(len(config.dim_mult) - 1)],
        "latents_mean": config.latents_mean,
        "latents_std": config.latents_std,
    }


DIFFUSERS_CONFIGS: dict[str, Callable[[Any], dict[str, Any]]] = {"mmdit": _mmdit_config, "vae": _vae_config}


def needed_config(source: Source) -> dict[str, Any] | None:
    """The configuration if a file without one would load as something else."""
    if not source.config:
        return None
    try:
        given, inferred = _whole_config(source), _whole_config(replace(source, config={}))
    except CheckpointError:  # shapes alone do not tell, or it would not load at all, which `contents_of` says
        return source.config
    return None if given == inferred else source.config


def _whole_config(source: Source) -> Any:
    """All that a network is built from, not its sizes alone."""
    if source.component != "encoder":
        return config_of(source)
    return empty_encoder(source, torch.bfloat16).config.to_dict()


def _copy_companions(path: Path, tokenizer: Path | None, output: Path, layout: str) -> None:
    """What a model needs besides weights: the tokenizer, and in Diffusers' layout what the source has of it."""
    folders = {"tokenizer": tokenizer} if tokenizer else {}
    if layout == "diffusers" and path.is_dir():
        folders |= {name: path / name for name in ("scheduler", "processor") if (path / name).is_dir()}
        if (path / "model_index.json").is_file():
            shutil.copyfile(path / "model_index.json", output / "model_index.json")
    for name, folder in folders.items():
        for file in folder.iterdir():
            text = file.suffix in TEXT_SUFFIXES and file.is_file()
            if text and file.name not in NOT_COPIED and ".index." not in file.name:
                (output / name).mkdir(exist_ok=True)
                shutil.copyfile(file, output / name / file.name)
