"""The closed loop: pictures that the model chooses among, and questions that it answers from new views."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io, ui
from comfy_execution.graph_utils import ExecutionBlocker
from PIL import Image
from torch import Tensor

from nodes import VAEDecode

from ..joyimage import candidates, judging, reasoning
from ..joyimage.conditioning import Group
from ..joyimage.images import Size, from_batch, to_batch
from ..joyimage.inputs import MAX_REFERENCES
from ..joyimage.settings import MAX_CANDIDATES, Answering, Sampling
from ..joyimage.understanding import PLAIN
from .conditioning import (
    base_size_input,
    empty_latent,
    encode,
    fitted,
    side,
    side_input,
    size_note,
    target_size,
)
from .edit import (
    ABSENT,
    LEAST_GUIDANCE,
    check_edit,
    fine_inputs,
    further_images_input,
    negative_input,
    part_inputs,
)
from .feedback import before_forwards, caught_warnings, show, show_so_far, told, without_previews
from .inputs import Refusal, check, refuse
from .node import Node
from .sampling import (
    Sampler,
    guidance_input,
    seed_input,
    steps_input,
)
from .understanding import answering_inputs

PLANNING = asdict(PLAIN)


@dataclass(frozen=True)
class Editor:
    """Makes pictures with the nodes' own parts, as Encode Prompt, Sampler and VAE Decode do."""

    model: Any
    encoder: Any
    vae: Any
    guidance: float
    options: dict[str, Any]

    def conditioned(
        self, pictures: tuple[Image.Image, ...], size: Size, prompts: Sequence[str], negative: str = ""
    ) -> list[tuple]:
        """Positive and negative CONDITIONING of each prompt; all share the pictures' encodings."""
        group = Group(pictures, size, tuple((prompt, negative) for prompt in prompts))
        return [(positive, negatives) for positive, negatives, _ in encode(self.encoder, self.vae, [group])]

    def sampled(self, conditioning: tuple, size: Size, seed: int, steps: int) -> Tensor:
        """An IMAGE (1, H, W, 3)."""
        positive, negative = conditioning
        latent, guidance = empty_latent(size, 1), max(self.guidance, 1.0)
        made = Sampler.execute(self.model, positive, latent, seed, steps, guidance, negative, **self.options)
        return VAEDecode().decode(self.vae, *made.args)[0]


def judge_of(encoder: Any) -> candidates.Judge:
    if judging.by_server():
        return judging.server_judge(comfy.model_management.throw_exception_if_processing_interrupted)
    return judging.own_judge(judging.Mind(partial(encoder.answer, **PLANNING), encoder.likelihoods))


class BestOf(Node):
    """Edit (JoyImage) with a choice: the same inputs give the same picture where the first seed is chosen."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyImageBestOf",
            display_name="Best of (JoyImage)",
            category="JoyImage",
            description="Edits like Edit (JoyImage) with several seeds and lets the model choose: it looks where a "
            "moved object is, which side it shows, what the camera moved, or whether the picture is what was asked "
            "for. It stops as soon as one is surely right. The scores appear on the node.",
            search_aliases=["best of n", "candidates", "judge", "seed selection", "rerank", "image edit"],
            hidden=[io.Hidden.unique_id],
            inputs=[
                *part_inputs(),
                io.Image.Input(
                    "image1",
                    optional=True,
                    tooltip="The image to edit, or the first to work from; without any the picture is made from text. "
                    "For a move it is the one with the red box.",
                ),
                further_images_input(),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    tooltip="The edit to make, or the picture; what the judge asks about too.",
                ),
                io.Int.Input(
                    "candidates",
                    default=4,
                    min=1,
                    max=MAX_CANDIDATES,
                    tooltip="How many seeds are tried at most, from the seed below on.",
                ),
                base_size_input(),
                seed_input(),
                steps_input(),
                guidance_input(min=LEAST_GUIDANCE),
                io.Int.Input(
                    "draft_steps",
                    default=0,
                    min=0,
                    max=int(Sampling.range("steps").most),
                    optional=True,
                    advanced=True,
                    tooltip="Steps of the candidates; the chosen one is made again by all steps. 0 takes all steps "
                    "for each.",
                ),
                negative_input(),
                *map(side_input, ("width", "height")),
                *fine_inputs(),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The chosen picture."),
                io.Image.Output(display_name="candidates", tooltip="All that were made, in the order of their seeds."),
                io.String.Output(display_name="scores", tooltip="A line for each candidate; * is the chosen one."),
                io.Int.Output(display_name="seed", tooltip="The chosen one's, for making it again."),
            ],
        )

    @classmethod
    def validate_inputs(cls, prompt=None, width=ABSENT, height=ABSENT, images=None) -> bool | str:
        return check_edit(prompt=prompt, width=width, height=height)

    @classmethod
    def execute(
        cls, model, encoder, vae, prompt, candidates, base_size, seed, steps, guidance,
        draft_steps=0, negative_prompt="", width=0, height=0, image1=None, images=None,
        rescale=Sampling.rescale, shift=Sampling.shift, schedule=Sampling.schedule, solver=Sampling.solver, **surplus,
    ) -> io.NodeOutput:  # fmt: skip
        refuse(surplus, "image1 and images.image2", f"images.image{MAX_REFERENCES}")
        batches = [image for image in (image1, *(images or {}).values()) if image is not None]
        options = {"rescale": rescale, "shift": shift, "schedule": schedule, "solver": solver}
        editor, judge = Editor(model, encoder, vae, guidance, options), judge_of(encoder)
        with caught_warnings() as problems:
            pictures, size = fitted(batches, target_size(width, height), side(base_size, encoder))
            [conditioning] = editor.conditioned(pictures, size, [prompt], negative_prompt)
        head = "\n".join([size_note(size, pictures), *dict.fromkeys(problems)])
        sampled = partial(editor.sampled, conditioning, size)
        draft = partial(sampled, steps=draft_steps or steps)
        with before_forwards(encoder):
            made, choice = chosen(cls.hidden.unique_id, head, judge, draft, (pictures, prompt), seed, candidates)
        best = made[choice.best]
        if draft_steps not in (0, steps):
            best = sampled(choice.seed, steps)
        text = told(cls.hidden.unique_id, f"{head}\n{choice}")
        return io.NodeOutput(best, torch.cat(made), str(choice), choice.seed, ui=text)


def chosen(
    node_id: str,
    head: str,
    judge: candidates.Judge,
    sampled: Callable[[int], Tensor],
    edit: tuple[tuple[Image.Image, ...], str],
    seed: int,
    count: int,
) -> tuple[list[Tensor], candidates.Choice]:
    """The candidates' pictures and the choice among them, whose scores appear on the node as they come."""
    made: list[Tensor] = []
    lines: list[str] = []

    def make(_members: list[int], seeds: list[int]) -> list[Image.Image]:
        made.append(sampled(seeds[0]))
        return from_batch(made[-1])

    def judged(attempt: candidates.Attempt) -> candidates.Verdict:
        verdict = candidates.judged(judge, attempt)
        lines.append(str(candidates.Candidate((seed + len(lines)) % candidates.SEEDS, verdict)))
        show(node_id, "\n".join([head, *lines]))
        return verdict

    [choice] = candidates.choose(make, [edit], [seed], count, judged)
    return made, choice


class Reason(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        most = reasoning.MOST
        return io.Schema(
            node_id="JoyImageReason",
            display_name="Reason with Views (JoyImage)",
            category="JoyImage/understanding",
            description="Answers a question about a picture from new views of its scene: the model says from where it "
            "wants to look, the editor renders that, and the model answers from all pictures together.",
            search_aliases=["new view", "spatial reasoning", "VQA", "question", "camera", "look around"],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                *part_inputs(), io.Image.Input("image", tooltip="The picture; of a batch, the first."),
                io.String.Input(
                    "question",
                    multiline=True,
                    tooltip="What a look from elsewhere would tell, as in: How many cups are behind the box?",
                ),
                io.Int.Input("views", default=1, min=1, max=most, tooltip="Views at most in each turn."),
                io.Int.Input(
                    "turns", default=1, min=1, max=most, tooltip="How often the model may ask for views, having seen "
                    "those before. With views this makes eight views at most.",
                ),
                base_size_input(),
                seed_input(),
                steps_input(),
                guidance_input(min=LEAST_GUIDANCE),
                *(each for each in answering_inputs() if each.id != "seed"),
            ],
            outputs=[
                io.String.Output(display_name="text", tooltip="The answer."),
                io.Image.Output(
                    display_name="views",
                    tooltip="The views, in the order in which they were asked for. Without any, what is connected "
                    "does not run.",
                ),
                io.String.Output(
                    display_name="instructions", is_output_list=True, tooltip="The camera instruction of each view."
                ),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, question=None, views=1, turns=1) -> bool | str:
        if question is not None and isinstance(problem := check(reasoning.check_reasoning, question, 1, 1), str):
            return Refusal("question", problem)
        problem = check(reasoning.check_reasoning, "?", views, turns)
        return Refusal("views" if views != 1 else "turns", problem) if isinstance(problem, str) else True

    @classmethod
    def execute(
        cls, model, encoder, vae, image, question, views, turns, base_size, seed, steps, guidance,
        max_new_tokens=Answering.max_new_tokens, temperature=Answering.temperature,
        top_p=Answering.top_p, top_k=Answering.top_k,
    ) -> io.NodeOutput:  # fmt: skip
        node = cls.hidden.unique_id
        picture = from_batch(image)[0]
        editor = Editor(model, encoder, vae, guidance, {})
        drawn = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p, "top_k": top_k}
        bar = comfy.utils.ProgressBar(views * turns, node_id=node)
        lines: list[str] = []
        images: list[ui.SavedResult] = []

        def answer(pictures, text: str, system: str | None) -> str:
            if system is None:
                return encoder.answer(pictures, text, seed=seed, **drawn)
            return encoder.answer(pictures, text, system=system, **PLANNING)

        def render(cameras) -> Iterator[Image.Image]:
            pictures, size = fitted([to_batch([picture])], None, side(base_size, encoder))
            for conditioning in editor.conditioned(pictures, size, [camera.text for camera in cameras]):
                yield from_batch(editor.sampled(conditioning, size, seed, steps))[0]

        def on_view(view: reasoning.View) -> None:
            lines.append(f"view: {view.words}")
            images.extend(ui.PreviewImage(to_batch([view.picture])).values)
            show_so_far(node, "\n".join(lines), images)
            bar.update(1)

        with before_forwards(encoder), without_previews():
            found = reasoning.reason(answer, render, picture, question, views=views, turns=turns, on_view=on_view)
        text = told(node, "\n".join([*lines, *([found.note] if found.note else []), found.text]))
        if not found.views:
            return io.NodeOutput(found.text, ExecutionBlocker(None), [], ui=text)
        made = to_batch(found.pictures)
        return io.NodeOutput(found.text, made, found.instructions, ui={**text, "images": images})
