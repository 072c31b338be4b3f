"""Training of LoRAs in the graph, by the library's trainer on the host's MODEL."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io, ui
from PIL import Image

from nodes import VAEDecode

from ..joyimage.atomic import Part
from ..joyimage.errors import JoyImageError
from ..joyimage.images import from_batch, load, to_batch
from ..joyimage.settings import Sampling
from ..joyimage.training import checkpoints, logs, pictures
from ..joyimage.training.files import LoraFile
from ..joyimage.training.fingerprints import fingerprint
from ..joyimage.training.masks import CELL
from ..joyimage.training.plot import loss_plot, smoothed
from ..joyimage.training.settings import Training
from ..joyimage.training.sheets import Preview, sheets_in
from ..joyimage.training.trainer import Progress, train
from . import host
from .conditioning import empty_latent
from .feedback import show, show_so_far, told, without_previews
from .inputs import Refusal, check, setting_input
from .node import Node
from .sampling import ADVANCED, Sampler, seed_input
from .training_set import TRAINING_SET, TrainingSet, training_folder

LORA_MODEL = io.Custom("LORA_MODEL")  # ComfyUI's own: tensors by the names that its loaders know
NEEDED = ("peft", "accelerate")
WATCHED = 2  # examples whose pictures are made while training goes on
CURVE = "loss.png"  # in the run's folder, where the page fetches it
REFRESH = 1.0  # seconds between two pictures of the curve
LINES = 10  # of the log that a run gives

TOOLTIPS = {
    "objective": "edit learns the targets of the set; guidance learns to do at guidance 1 what the model does at "
    "guidance_scale, which halves the time of every step of sampling, from the set's images and captions alone.",
    "steps": "How often the weights change. 500 to 3000 are usual for the published model.",
    "learning_rate": "How much they change: 0.0001 for the published model, 0.002 for the bundled one.",
    "rank": "What the LoRA can hold, and the size of its file. 16 or 32 are usual.",
    "batch_size": "Examples that are learned at a time. Memory and time of a step grow with it.",
    "sample_every": "Steps from one sheet of pictures to the next, which shows the first examples of the set before "
    "and after. 0 makes none.",
    "alpha": "Strength of the LoRA: it is scaled by alpha / rank.",
    "adapter": "rslora keeps its strength at high ranks; dora also learns the lengths of the rows, and is slower.",
    "optimizer": "muon takes fewer steps and half of the memory for its state.",
    "accumulation": "Batches of one step: a larger batch for time in place of memory.",
    "warm_up": "Steps in which the learning rate rises from 0.",
    "cool_down": "Last steps, in which it falls to 0.",
    "clip": "Largest norm of a step's gradient. 0 lets all pass.",
    "ema": "Decay of the average of the weights that is given in place of the last ones. 0 gives the last.",
    "drop_prompts": "Share of the examples that are learned with an empty caption, so that guidance works.",
    "shift": "Above 1 learns more at high noise, that is the composition; below 1 the details.",
    "background": "How much the rest counts, where the set's loss is by mask or by difference.",
    "guidance_scale": "With objective guidance: the guidance that is learned.",
    "rescale": "With objective guidance: how far it keeps the norm of the velocity.",
    "teacher_steps": "With objective guidance: steps of the pictures on which it is learned; and of samples.",
    "save_every": "Steps from one checkpoint to the next. One is written too when the run is interrupted.",
}  # fmt: skip
MAIN = ("objective", "steps", "learning_rate", "rank", "batch_size")


class TrainLora(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        finer = (name for name in TOOLTIPS if name not in (*MAIN, "sample_every"))
        return io.Schema(
            node_id="JoyImageTrainLora",
            display_name="Train LoRA (JoyImage)",
            category="JoyImage/training",
            description="Trains a LoRA on a training set, with the loss drawn on the node. Interrupted, it saves what "
            "it has, and goes on from there when it is run again with the same inputs. The MODEL stays as it is.",
            search_aliases=[
                "lora training",
                "fine-tune",
                "finetune",
                "dreambooth",
                "dora",
                "distill guidance",
                "joyai",
            ],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Model.Input("model", tooltip="From Load MMDiT (JoyImage), or patched by other nodes."),
                TRAINING_SET.Input("set", tooltip="From Training Set (JoyImage)."),
                *(setting_input(Training, name, TOOLTIPS[name]) for name in MAIN),
                seed_input_of_training(),
                setting_input(Training, "sample_every", TOOLTIPS["sample_every"], default=0),
                *(setting_input(Training, name, TOOLTIPS[name], **ADVANCED) for name in finer),
                io.Boolean.Input(
                    "checkpointing",
                    default=Training.checkpointing,
                    tooltip="Compute each block twice in place of keeping what it computed. Without it a step is a "
                    "quarter faster and takes several times the memory.",
                    **ADVANCED,
                ),
            ],
            outputs=[
                LORA_MODEL.Output(display_name="lora", tooltip="For Load LoRA Model and Save LoRA Weights."),
                io.Image.Output(display_name="samples", tooltip="The last sheet of pictures, or else the curve."),
                io.String.Output(display_name="log", tooltip="The loss over the steps, and where the files are."),
                io.Int.Output(display_name="steps", tooltip="Steps done, for the name of Save LoRA Weights."),
            ],
        )

    @classmethod
    def validate_inputs(cls, steps=None, warm_up=Training.warm_up, cool_down=Training.cool_down) -> bool | str:
        if (problem := check(needed)) is not True:
            return Refusal("steps", str(problem))
        problem = check(
            lambda *three: Training(steps=three[0], warm_up=three[1], cool_down=three[2]), steps, warm_up, cool_down
        )
        return True if problem is True else Refusal("cool_down" if cool_down else "steps", str(problem))

    @classmethod
    def execute(cls, model, set, **values) -> io.NodeOutput:
        needed()
        settings = Training(loss=set.loss, **values)
        with torch.inference_mode(False):
            work = Work(model, set, settings, cls.hidden.unique_id)
            lora = work.train()
        text, shown = work.log(lora.save(work.folder / "lora.safetensors")), work.drawn()
        result = lora.comfy(), to_batch([load(shown[-1])]), text, settings.steps
        return io.NodeOutput(*result, ui={**told(cls.hidden.unique_id, text), "images": in_output(shown)})


def seed_input_of_training() -> io.Input:
    own = seed_input()
    own.tooltip = "Of all that is drawn: the same seed and inputs give the same LoRA."
    own.control_after_generate = False  # a change of it is another run
    return own


def needed() -> None:
    """Raise `JoyImageError` where a package that training needs is not installed in ComfyUI's Python."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise JoyImageError(
            f"training needs {' and '.join(missing)}, which the pack does not bring by itself: run "
            f"`{sys.executable} -m pip install {' '.join(NEEDED)}` and start ComfyUI again"
        )


class Work:
    """A run on a MODEL: where it writes, what it makes room for, and what the node shows of it."""

    def __init__(self, model: Any, set: TrainingSet, settings: Training, node_id: str):
        self.model, self.set, self.settings, self.node_id = model, set, settings, node_id
        self.memory = host.training_memory(model, set.samples, settings)
        self.losses: dict[int, float] = {}
        self.began_at = 0
        self._bar = comfy.utils.ProgressBar(settings.steps, node_id=node_id)
        self._shown_at = 0.0
        self._started = time.monotonic()

    def train(self) -> LoraFile:
        with host.at_work(self.model, self.memory):
            network = host.twin(self.model)
        base = fingerprint(network)
        self.folder = run_folder(self.settings, base, self.set.samples.key)
        self.began_at = checkpoints.saved_steps(self.folder)
        self.losses = {line["step"]: line["loss"] for line in logs.read(self.folder) if "loss" in line}
        preview = None
        if self.settings.sample_every:
            preview = Preview(partial(self._pictures, host.with_twin(self.model, network)), self._given())
        notes = {"base": base, "made_by": "Train LoRA (JoyImage)"}
        room = partial(host.at_work, self.model, self.memory)
        return train(
            network, self.set.samples, self.settings, self.folder, device=self.model.load_device, room=room,
            preview=preview, callback=self._on_step, notes=notes,
        )  # fmt: skip

    # -- while it runs ------------------------------------------------------------------------------------------------

    def _on_step(self, progress: Progress) -> None:
        if progress.stage == "training":
            self._note(progress)
        else:
            show(self.node_id, f"pictures of the model itself: {progress.step} of {progress.steps}")
        comfy.model_management.throw_exception_if_processing_interrupted()

    def _note(self, progress: Progress) -> None:
        self.losses = {step: loss for step, loss in self.losses.items() if step < progress.step}
        self.losses[progress.step] = progress.loss
        if time.monotonic() - self._shown_at < REFRESH and progress.step < progress.steps:
            return
        self._shown_at = time.monotonic()
        self._bar.update_absolute(progress.step, progress.steps)
        left = "" if progress.seconds_left is None else f", {duration(progress.seconds_left)} left"
        text = f"step {progress.step} of {progress.steps}, loss {progress.loss:.4f}{left}"
        show_so_far(self.node_id, text, in_output(self.drawn()))

    def drawn(self) -> list[Path]:
        """The curve, written anew, and the last sheet that this run, or an earlier part of it, has made."""
        curve = self.folder / CURVE
        with Part(self.folder) as part:
            loss_plot(self.losses, self.settings.steps).save(part.path, format="PNG")
            part.publish([curve], replace=True)
        sheets = sheets_in(self.folder) if self.settings.sample_every else []
        return [curve, *sheets[-1:]]

    # -- samples ------------------------------------------------------------------------------------------------------

    def _given(self) -> list[list[Image.Image]]:
        return [[pictures.load(each) for each in example.controls] for example in self.set.examples[:WATCHED]]

    @torch.inference_mode()
    @without_previews()
    def _pictures(self, model: Any) -> list[Image.Image]:
        """What the first examples become now, by the nodes' own parts."""
        own = self.settings
        guidance = 1.0 if own.objective == "guidance" else Sampling.guidance_scale
        made = []
        for sample in self.set.samples[:WATCHED]:
            positive, negative = (host.conditioning(text, sample.references) for text in (sample.context, sample.empty))
            height, width = (CELL * side for side in sample.latent.shape[2:])
            latent = empty_latent((height, width), 1)
            sampled = Sampler.execute(model, positive, latent, own.seed, own.teacher_steps, guidance, negative)
            made += from_batch(VAEDecode().decode(self.set.vae, *sampled.args)[0])
        return made

    # -- afterwards ---------------------------------------------------------------------------------------------------

    def log(self, path: Path) -> str:
        """The loss over the run in some lines, and where its files are."""
        steps = self.settings.steps
        means = dict(zip(self.losses, smoothed(list(self.losses.values()), steps), strict=True))
        every = math.ceil(steps / LINES)
        lines = [f"step {step}: loss {loss:.4f}" for step, loss in means.items() if step % every == 0 or step == steps]
        if self.began_at:
            again = f"went on from step {self.began_at}" if self.began_at < steps else "was done already"
            lines.insert(0, again)
        done = f"{steps} steps with {len(self.set.samples)} examples"
        return "\n".join([*lines, f"{done}, {duration(time.monotonic() - self._started)}", str(path)])


def run_folder(settings: Training, base: str, data: str) -> Path:
    """Where a run writes: the same inputs go on where they stopped, and more steps go on where fewer ended."""
    free = {name for name in checkpoints.FREE if name != "steps" or not settings.cool_down}
    told = {name: getattr(settings, name) for name in settings.names() if name not in free}
    key = hashlib.sha256(repr((sorted(told.items()), base, data)).encode()).hexdigest()[:12]
    folder = training_folder() / key
    return training_folder() / f"{key}-{settings.steps}" if checkpoints.saved_steps(folder) > settings.steps else folder


def in_output(paths: Sequence[Path]) -> list[ui.SavedResult]:
    """Files within the host's folder for outputs, as a node's `ui` names them."""
    home = Path(folder_paths.get_output_directory())
    return [ui.SavedResult(path.name, path.parent.relative_to(home).as_posix(), io.FolderType.output) for path in paths]


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
