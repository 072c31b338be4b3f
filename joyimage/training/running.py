"""A whole training: pictures are checked and encoded, encoder and VAE let go, and a LoRA trained on what came out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from ..errors import JoyImageError
from ..pipeline import JoyImage
from ..settings import AUTO, MAX_REFERENCES, Sampling, check_base_size
from . import checking, pictures
from .adapter import check_extra
from .caching import Samples, cache
from .checking import Checked, check
from .checkpoints import saved_steps
from .engines import check_optimizer
from .examples import Example
from .files import LoraFile
from .pictures import Picture
from .planning import TrainingPlan, plan_training
from .processes import Processes
from .settings import Training
from .sheets import Preview
from .trainer import Callback, Progress, train

CACHE = "cache"  # the folder of latents and contexts within a run's
SAMPLE_SIZE = 512  # the largest base size of samples: they are looked at side by side, and cost time
SAMPLE_STEPS = 20
SAMPLES = 2  # of the training set, where nothing else is to be watched


@dataclass(frozen=True)
class Watched:
    """What a sample is made from: a prompt, and the pictures that it edits, if any.

    Raises `JoyImageError` for more pictures than the model takes.
    """

    prompt: str
    pictures: tuple[Picture, ...] = ()

    def __post_init__(self):
        if len(self.pictures) > MAX_REFERENCES:
            raise JoyImageError(
                f"a sample is made from {len(self.pictures)} pictures; the model takes at most {MAX_REFERENCES}"
            )


def run(
    model: JoyImage, examples: Sequence[Example] | Checked, settings: Training, folder: str | Path, *,
    base_size: int | str | None = AUTO, watched: Sequence[Watched] | None = None,
    callback: Callback | None = None, notes: Mapping[str, str] | None = None,
) -> LoraFile:  # fmt: skip
    """Train a LoRA for a model, which is as it was afterwards. Returns what `LoraFile.save` writes.

    `examples` are checked first, and those that cannot be used left out; `check` tells which, and what it gave can be
    passed in their place. `folder` gets the cache, checkpoints, the log and the sheets of samples; a run that stopped
    there goes on. With `base_size` "auto" pictures have the size that the model was made for, with None their own.
    `watched` is what samples are made from every `sample_every` steps, by default two examples of the set.

    Within the model's memory budget its blocks stream; without one, encoder and VAE are in main memory while steps are
    made. `callback` hears of all stages: "checked", "texts", "pictures", "masks", "teacher" and "training". What it
    raises ends the run, and so does Ctrl-C; what is done is kept. `notes`, such as base and command, come into the
    file. Several processes, as `accelerate launch` starts them, share the encoding as well as the steps.

    Raises `JoyImageError` for what cannot be used, and as `check`, `cache`, `plan_training` and `train` do.
    """
    check_extra("peft", "accelerate")
    check_optimizer(settings)
    check_base_size(base_size)
    processes, home = Processes(model.device), Path(folder)
    base = model.base_size if isinstance(base_size, str) else base_size  # the only word is "auto"
    tell = None if callback is None else partial(_tell, callback)
    checked = examples if isinstance(examples, Checked) else check(examples, base, loss=settings.loss, progress=tell)
    plan = planned(model, checked, settings)
    samples = _encode(model, checked.examples, home / CACHE, base, settings.loss, processes, tell)
    preview = None
    if settings.sample_every and processes.first and saved_steps(home) < settings.steps:
        preview = _preview(model, watched or _some(checked.examples), base, settings)
    model.memory.leave()
    with put_away(model.encoder.model, *([] if preview else [model.vae])):
        room = partial(model.memory.at_work, "mmdit", plan.base.activations)
        return train(
            model.mmdit, samples, settings, home, device=model.device, room=room, preview=preview, callback=callback,
            notes=notes,
        )  # fmt: skip


def planned(model: JoyImage, checked: Checked, settings: Training) -> TrainingPlan:
    """What the training of a loaded model will take, within its memory budget.

    Raises `JoyImageError` for a budget that is too small, and where blocks would stream without checkpointing.
    """
    memory = model.memory
    plan = plan_training(memory.needs, checked, settings, budget=memory.budget, device=memory.device.type)
    check_streaming(plan, settings)
    return plan


def check_streaming(plan: TrainingPlan, settings: Training) -> None:
    """Raise `JoyImageError` for blocks that stream without checkpointing: gone before the backward pass."""
    if plan.base.streamed and not settings.checkpointing:
        raise JoyImageError(
            "not all blocks fit into the memory, and blocks stream only with checkpointing: leave that on, or give more"
        )


def _tell(callback: Callback, what: str, done: int, total: int) -> None:
    callback(Progress(done, total, stage=what))


def _encode(
    model: JoyImage, examples: Sequence[Example], folder: Path, base_size: int | None, loss: str, processes: Processes,
    progress: checking.Counting | None,
) -> Samples:  # fmt: skip
    """Each process encodes its share into the same folder, and reads the whole set from there."""
    encode = partial(cache, model, folder=folder, base_size=base_size, loss=loss, progress=progress)
    if processes.count > 1:
        if share := examples[processes.index :: processes.count]:
            encode(share)
        processes.wait()
    return encode(examples)


# -- samples ----------------------------------------------------------------------------------------------------------


def _some(examples: Sequence[Example]) -> list[Watched]:
    """The first examples of a set, and others further on."""
    chosen = examples[:: max(1, len(examples) // SAMPLES)][:SAMPLES]
    return [Watched(example.caption, example.controls) for example in chosen]


def _preview(model: JoyImage, watched: Sequence[Watched], base_size: int | None, settings: Training) -> Preview:
    """Encoded now: while steps are made the encoder is not there. Guidance that is distilled is left out of samples."""
    given = [[pictures.load(picture) for picture in each.pictures] for each in watched]
    size = min(base_size or model.base_size, SAMPLE_SIZE)
    conditionings = model.condition(given, [each.prompt for each in watched], base_size=size)
    guidance = 1.0 if settings.objective == "guidance" else Sampling.guidance_scale
    steps = min(model.steps, SAMPLE_STEPS)

    def make() -> list[Image.Image]:
        return model.render(conditionings, seed=settings.seed, steps=steps, guidance_scale=guidance)

    return Preview(make, given)


# -- memory -----------------------------------------------------------------------------------------------------------


@contextmanager
def put_away(*networks: nn.Module) -> Iterator[None]:
    """Have networks in main memory meanwhile; those that are on another device come back to it."""
    places = [next(network.parameters()).device for network in networks]
    _move(networks, [torch.device("cpu")] * len(networks))
    try:
        yield
    finally:
        _move(networks, places)


def _move(networks: Sequence[nn.Module], places: Sequence[torch.device]) -> None:
    for network, place in zip(networks, places, strict=True):
        network.to(place)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
