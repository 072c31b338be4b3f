"""Every setting of training: its name, default, range and choices, checked when it is made. It imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import JoyImageError
from ..settings import NATIVE_SHIFT, SEEDS, Sampling, Settings, check_seed, choice, finite, given, number, whole

ADAPTERS = ("lora", "rslora", "dora")
OPTIMIZERS = ("adamw", "muon")
LOSSES = ("target", "mask", "difference")
OBJECTIVES = ("edit", "guidance")
PRECISIONS = ("model", "bf16")
NAMINGS = ("comfyui", "peft")  # of tensors in a file
# Parts of the names of layers, as checkpoints have them: both streams' attention and MLPs.
TARGETS = ("img_attn_qkv", "txt_attn_qkv", "img_attn_proj", "txt_attn_proj", "img_mlp", "txt_mlp")

SUFFIX = ".safetensors"
PEFT_WEIGHTS = f"adapter_model{SUFFIX}"  # the file in a folder in PEFT's layout


@dataclass(frozen=True, kw_only=True)
class Training(Settings):
    """How a LoRA is trained. Raises `JoyImageError` for a value that cannot be used, naming it.

    A step takes `batch_size` samples at a time on each card, `accumulation` times, and changes the weights once.
    """

    objective: str = choice(
        "edit", OBJECTIVES, "edit learns the pairs' targets; guidance learns to do at guidance 1 what the model does "
        "at guidance_scale, from prompts and pictures alone, which halves the time of every step of sampling",
    )  # fmt: skip
    steps: int = number(1000, 1, 1_000_000, help="changes of the weights")
    batch_size: int = number(1, 1, 1024, help="samples that share a forward; memory grows with it")
    accumulation: int = number(1, 1, 1024, help="forwards of one step: a larger batch for time instead of memory")
    learning_rate: float = number(1e-4, 1e-7, 0.1, 1e-5, "of either optimizer, after the warm-up")
    warm_up: int = number(100, 0, 100_000, help="steps in which the learning rate rises from 0")
    cool_down: int = number(0, 0, 1_000_000, help="last steps, in which the learning rate falls to 0")
    optimizer: str = choice("adamw", OPTIMIZERS, "adamw or muon; muon takes fewer steps and half the memory")
    clip: float = number(1.0, 0.0, 1000.0, 0.1, "largest norm of a step's gradient; 0 lets all pass")
    ema: float = number(0.0, 0.0, 0.9999, 0.0001, "decay of the average of the weights that is saved; 0 saves the last")
    adapter: str = choice(
        "lora", ADAPTERS, "lora, rslora (keeps its strength at high ranks) or dora (slower, stronger)"
    )
    rank: int = number(16, 1, 1024, help="of the updates: the file grows with it, and what they can hold")
    alpha: float = number(16.0, 0.001, 4096.0, 0.5, "strength of the updates: alpha / rank, or alpha / sqrt(rank)")
    targets: Sequence[str] = given(TARGETS, "layers to train, by whole parts of their names")
    shift: float = number(NATIVE_SHIFT, 0.01, 100.0, 0.01, "shift of the noise levels towards noise")
    drop_prompts: float = number(0.1, 0.0, 1.0, 0.01, "share of samples that are seen with an empty prompt")
    loss: str = choice(
        "target",
        LOSSES,
        "where it counts: on all of the target, where a mask is white, or where target and picture differ",
    )
    background: float = number(0.1, 0.0, 1.0, 0.01, "how much the rest counts with a mask or by difference")
    guidance_scale: float = number(Sampling.guidance_scale, 1.0, 30.0, 0.1, "guidance that is distilled")
    rescale: float = number(Sampling.rescale, 0.0, 1.0, 0.05, "its rescaling")
    teacher_steps: int = number(12, 1, 200, help="steps of the pictures that guidance is learned on")
    checkpointing: bool = given(True, "compute each block twice instead of keeping what it computed: little memory")
    precision: str = choice("model", PRECISIONS, "model computes as loaded, bf16 the blocks in mixed precision")
    save_every: int = number(250, 0, 100_000, help="steps from one checkpoint to the next; 0 saves the last alone")
    keep: int = number(2, 1, 1000, help="checkpoints that are kept, the newest")
    sample_every: int = number(250, 0, 100_000, help="steps from one sheet of samples to the next; 0 makes none")
    seed: int = number(0, 0, SEEDS - 1, help="of everything that is drawn")

    def __post_init__(self):
        for name, (valid, wanted) in (self._counts() | self._numbers() | self._words()).items():
            if not valid:
                raise JoyImageError(f"{name} is {getattr(self, name)!r:.60} and must be {wanted}")
        check_seed(self.seed)
        targets = [self.targets] if isinstance(self.targets, str) else list(self.targets)
        if not targets or not all(isinstance(target, str) and target for target in targets):
            raise JoyImageError(f"targets is {self.targets!r:.60}; give parts of layers' names, such as {TARGETS[0]}")
        object.__setattr__(self, "targets", tuple(targets))  # frozen for all others
        if self.warm_up + self.cool_down > self.steps and self.cool_down:
            raise JoyImageError(
                f"warm_up of {self.warm_up} and cool_down of {self.cool_down} do not fit into {self.steps} steps"
            )

    def _counts(self) -> dict[str, tuple[bool, str]]:
        positive = ("steps", "batch_size", "accumulation", "rank", "teacher_steps", "keep")
        other = ("warm_up", "cool_down", "save_every", "sample_every")
        least = {**dict.fromkeys(positive, 1), **dict.fromkeys(other, 0)}
        return {
            name: (whole(getattr(self, name)) and getattr(self, name) >= low, f"a whole number of at least {low}")
            for name, low in least.items()
        }

    def _numbers(self) -> dict[str, tuple[bool, str]]:
        shares = ("drop_prompts", "background", "rescale")
        positive = ("learning_rate", "alpha", "shift", "guidance_scale")
        found = {name: (_within(getattr(self, name), 0, 1), "from 0 to 1") for name in shares}
        found |= {name: (finite(getattr(self, name)) and getattr(self, name) > 0, "above 0") for name in positive}
        found["clip"] = finite(self.clip) and self.clip >= 0, "0 (no limit) or more"
        found["ema"] = _within(self.ema, 0, 1) and self.ema < 1, "0 (off) or more, and below 1"
        return found

    def _words(self) -> dict[str, tuple[bool, str]]:
        names = ("objective", "optimizer", "adapter", "loss", "precision")
        found = {
            name: (getattr(self, name) in self.choices(name), f"one of {', '.join(self.choices(name))}")
            for name in names
        }
        found["checkpointing"] = isinstance(self.checkpointing, bool), "True or False"
        return found

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0: it rises linearly, stays, and falls linearly."""
        rising = min(1.0, (step + 1) / max(1, self.warm_up))
        falling = min(1.0, (self.steps - step) / max(1, self.cool_down))
        return self.learning_rate * min(rising, falling)


def naming_of(path: str | Path, naming: str | None = None) -> str:
    """How tensors in a file are named: as asked for, else as ComfyUI does in a file and PEFT in a folder.

    Raises `JoyImageError` for a name that is neither a .safetensors file nor a folder, and for a folder in ComfyUI's
    naming.
    """
    path = Path(path)
    if naming is not None and naming not in NAMINGS:
        raise JoyImageError(f"naming is {naming!r:.60} and must be one of {', '.join(NAMINGS)}")
    if path.suffix and path.suffix != SUFFIX:
        raise JoyImageError(f"{path}: end the name in {SUFFIX}, or give a folder for PEFT's layout")
    if not path.suffix and naming == "comfyui":
        raise JoyImageError(f"{path}: a folder has PEFT's naming; for ComfyUI's end the name in {SUFFIX}")
    return naming or ("comfyui" if path.suffix else "peft")


def check_output(path: str | Path, naming: str | None = None) -> None:
    """Raise `JoyImageError` where no LoRA can be written by this name: as `naming_of` does, and for what is there."""
    naming_of(path, naming)
    path = Path(path)
    if path.name in ("", ".."):
        raise JoyImageError(f"{path}: is no name for a LoRA; give one such as lora{SUFFIX}")
    if path.suffix and path.is_dir():
        raise JoyImageError(f"{path}: is a folder; name a file, or a folder without {SUFFIX} for PEFT's layout")
    if not path.suffix and path.is_file():
        raise JoyImageError(f"{path}: is a file, and PEFT's layout needs a folder; end the name in {SUFFIX} for a file")


def _within(value: object, low: float, high: float) -> bool:
    return finite(value) and low <= value <= high  # pyright: ignore[reportOperatorIssue] - finite says that it is one
