"""LoRA files as this library, ComfyUI and PEFT (with it Diffusers) read them.

| file | naming | who reads it |
| --- | --- | --- |
| NAME.safetensors | `diffusion_model.X.lora_down.weight`, and `alpha` of each layer | the library, ComfyUI |
| a folder | PEFT's: `base_model.model.X.lora_A.weight`, and adapter_config.json | the library, PEFT |
| a file, "peft" | Diffusers': `transformer.X.lora_A.weight`, the configuration in the header | the library |

ComfyUI adds alpha / rank; where the rule is another, as with rsLoRA, the alpha in its file is the one that gives the
same. Core's own loader divides DoRA's magnitudes by the norms of the weight as it was, not with the update as DoRA has
it (arXiv 2402.09353): what it makes of a DoRA is a little off (1.3 % in a test), and what Load LoRA (JoyImage) makes is
not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from ..atomic import Part, check_name
from ..checkpoints.write import Entry, Writer
from .settings import PEFT_WEIGHTS, Training, check_output, naming_of

DIFFUSERS_HEADER = "lora_adapter_metadata"
PEFT_CONFIG = "adapter_config.json"  # beside the weights


@dataclass(frozen=True, eq=False)
class Update:
    """Of one layer: `down` (rank, in), `up` (out, rank), and DoRA's `magnitude` (out,); float32 on the CPU."""

    down: Tensor
    up: Tensor
    magnitude: Tensor | None = None


@dataclass(frozen=True, eq=False)
class LoraFile:
    """A trained LoRA: its updates by layer, the settings that it was made with, and notes of where it comes from."""

    updates: Mapping[str, Update]
    settings: Training
    notes: Mapping[str, str]  # such as base, data and command

    @property
    def metadata(self) -> dict[str, str]:
        """The header of the file: notes, steps, rank, alpha, and the rest of the settings."""
        own = self.settings
        told = {"steps": own.steps, "rank": own.rank, "alpha": own.alpha, "adapter": own.adapter, "seed": own.seed}
        settings = {name: getattr(own, name) for name in own.names()}
        return {
            "format": "pt",
            **{name: str(value) for name, value in told.items()},
            "settings": json.dumps(settings, sort_keys=True),
            **self.notes,
        }

    def comfy(self) -> dict[str, Tensor]:
        """Tensors in ComfyUI's naming."""
        made: dict[str, Tensor] = {}
        for name, update in self.updates.items():
            key, rank = f"diffusion_model.{name}", len(update.down)
            alpha = self.settings.alpha * (math.sqrt(rank) if self.settings.adapter == "rslora" else 1)
            made |= {
                f"{key}.lora_down.weight": update.down,
                f"{key}.lora_up.weight": update.up,
                f"{key}.alpha": update.down.new_tensor(alpha),
            }
            if update.magnitude is not None:
                made[f"{key}.dora_scale"] = update.magnitude[:, None].clone()  # (out, 1): the norms are of rows
        return made

    def peft(self, start: str = "base_model.model.") -> dict[str, Tensor]:
        """Tensors in PEFT's naming; `start` is that of their names."""
        made: dict[str, Tensor] = {}
        for name, update in self.updates.items():
            key = f"{start}{name}"
            made |= {f"{key}.lora_A.weight": update.down, f"{key}.lora_B.weight": update.up}
            if update.magnitude is not None:
                made[f"{key}.lora_magnitude_vector"] = update.magnitude
        return made

    def config(self) -> dict[str, object]:
        """PEFT's adapter_config.json."""
        return {
            "peft_type": "LORA",
            "base_model_name_or_path": self.notes.get("base"),
            "r": self.settings.rank,
            "lora_alpha": self.settings.alpha,
            "target_modules": sorted(self.updates),
            "use_rslora": self.settings.adapter == "rslora",
            "use_dora": self.settings.adapter == "dora",
            "inference_mode": True,
        }

    def save(self, path: str | Path, naming: str | None = None) -> Path:
        """Write a file in ComfyUI's naming if the name ends in .safetensors, else a folder in PEFT's; returns it.

        A file in the `naming` "peft" is as Diffusers writes them. What is there is replaced, once the new is complete.
        Raises `JoyImageError` for another suffix, for a name that cannot be, and for a folder in place of the file or a
        file in place of the folder.
        """
        check_output(path, naming)
        path, naming = Path(path), naming_of(path, naming)
        check_name(path)
        folder = path.parent if path.suffix else path
        folder.mkdir(parents=True, exist_ok=True)
        if naming == "comfyui":
            _write(path, self.comfy(), self.metadata)
        elif path.suffix:
            header = json.dumps({f"transformer.{name}": value for name, value in self.config().items()})
            _write(path, self.peft("transformer."), {**self.metadata, DIFFUSERS_HEADER: header})
        else:
            _write(path / PEFT_WEIGHTS, self.peft(), self.metadata)
            with Part(path) as part:
                part.path.write_text(json.dumps(self.config(), indent=2) + "\n", encoding="utf-8")
                part.publish([path / PEFT_CONFIG], replace=True)
        return path


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """By our own writer: safetensors' has the metadata in another order each time, and equal runs make equal files."""
    entries = [Entry(name, "F32", tuple(tensor.shape), tensor.nbytes) for name, tensor in tensors.items()]
    with Writer(path, entries, dict(sorted(metadata.items())), "safetensors") as writer:
        for name, tensor in tensors.items():
            writer.write(name, tensor)
        writer.finish(tqdm(disable=True))
