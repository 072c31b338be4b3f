"""From the fields of a request to a job: limits, pictures decoded, settings and sentences checked. Takes no torch.

All of it may take a while, as pictures do, and belongs into a thread.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from PIL import Image

from ... import spatial
from ...boxes import locate_question
from ...candidates import check_candidates
from ...errors import JoyImageError
from ...images import check_size
from ...messages import Message
from ...places import read_place
from ...reasoning import check_reasoning
from ...settings import Answering, Sampling, check_seed, check_text
from .errors import refused
from .fields import (
    SAMPLED,
    Answered,
    AssistantMessage,
    ChatFields,
    EditFields,
    Fields,
    GenerateFields,
    LocateFields,
    Made,
    ReasonFields,
    SystemMessage,
    UserMessage,
)
from .jobs import Job
from .pictures import from_data_url, read
from .settings import Serving

SIZE = re.compile(r"([0-9]{1,9})x([0-9]{1,9})")  # width first, as OpenAI has it
BOX = re.compile(r" *(-?[0-9]{1,6})" + r" *, *(-?[0-9]{1,6})" * 3 + " *")
SPATIAL = ("move", "rotate", "camera")
ANSWERS = {"temperature", "top_p", "top_k", "seed"}


class Reader:
    """Requests as jobs, within the limits of `serving`. `steps` are those of the model's own schedule, `fetched` what
    was at the addresses in a request.

    Its methods raise `ApiError` for what is beyond a limit, and `JoyImageError` as the library does.
    """

    def __init__(self, serving: Serving, steps: int, fetched: Mapping[str, bytes]):
        self.serving, self.steps, self.fetched = serving, steps, fetched

    def edit(self, fields: EditFields) -> Job:
        given = listed(fields.image)
        wanted = [name for name in SPATIAL if getattr(fields, name) is not None]
        self._check_combination(fields, wanted, len(given))
        arguments = self._made(fields)
        texts = {"prompt": fields.prompt, "move": fields.move, "to": fields.to, "rotate": fields.rotate}
        self._check_texts(texts)
        pictures = [self._picture(each, "image") for each in given]
        place = None
        if wanted:
            sentence, pictures, place = _spatial(fields, wanted[0], pictures)
        else:
            sentence = self._text(fields.prompt, "prompt")
        arguments |= {"images": pictures, "instruction": sentence}
        if fields.mask is not None:
            arguments["mask"] = self._picture(fields.mask, "mask", mask=True)
        return Job("edit", arguments, self._units(arguments), place, self._together("edit", arguments, place))

    def generate(self, fields: GenerateFields) -> Job:
        arguments = self._made(fields) | {"prompt": self._text(fields.prompt, "prompt")}
        return Job("generate", arguments, self._units(arguments), None, self._together("generate", arguments, None))

    def chat(self, fields: ChatFields) -> Job:
        said = [each for each in fields.messages if not isinstance(each, SystemMessage)]
        pictures = sum(len(each.addresses) for each in said if isinstance(each, UserMessage))
        self._at_most("pictures in messages", pictures, self.serving.max_files - 1, "messages")
        for each in fields.messages:
            self._check_texts({"messages": each.text})
        characters = sum(len(each.text) for each in fields.messages)
        self._at_most("the characters of messages", characters, self.serving.max_chat_characters, "messages")
        settings = self._answering(fields, fields.max_completion_tokens or fields.max_tokens)
        *history, question = map(self._message, said)
        if not question.text.strip() and not question.images:
            raise refused("the question is empty and there is no picture to describe", "messages")
        first = fields.messages[0]
        system = {"system": first.text} if isinstance(first, SystemMessage) else {}
        asked = {"images": question.images, "question": question.text, "settings": settings}
        return Job("ask", {**asked, **system, "history": history, "stop": listed(fields.stop)})

    def _message(self, said: UserMessage | AssistantMessage) -> Message:
        if isinstance(said, AssistantMessage):
            return Message("assistant", said.text)
        return Message("user", said.text, [self._picture(url, "messages") for url in said.addresses])

    def locate(self, fields: LocateFields) -> Job:
        text = self._text(fields.object, "object")
        locate_question(text)
        return Job("locate", {"image": self._picture(fields.image, "image"), "object": text})

    def reason(self, fields: ReasonFields) -> Job:
        question = self._text(fields.question, "question")
        check_reasoning(question, fields.views, fields.turns)
        arguments = asdict(self._answering(fields, fields.max_tokens))
        steps = self._at_most("steps", fields.steps or self.steps, self.serving.max_steps, "steps")
        editing = {"steps": fields.steps, "guidance_scale": fields.guidance_scale}
        Sampling.of(editing)
        arguments |= {"views": fields.views, "turns": fields.turns, "question": question, **editing}
        arguments["image"] = self._picture(fields.image, "image")
        return Job("reason", arguments, fields.views * fields.turns * steps)

    def _made(self, fields: Made) -> dict[str, Any]:
        """What pictures are made with, checked."""
        values = {name: getattr(fields, name) for name in SAMPLED}
        sampling = {name: value for name, value in values.items() if value is not None}
        settings = Sampling.of(sampling)
        self._at_most("n", fields.n, self.serving.max_pictures, "n")
        self._at_most("candidates", fields.candidates, self.serving.max_candidates, "candidates")
        for name, steps in (("steps", fields.steps or self.steps), ("draft_steps", fields.draft_steps or 1)):
            self._at_most(name, steps, self.serving.max_steps, name)
        check_candidates(fields.candidates, fields.draft_steps, fields.n, settings)
        check_seed(fields.seed)
        self._check_texts({"negative_prompt": fields.negative_prompt})
        return sampling | {
            "size": self._size(fields.size), "seed": fields.seed, "count": fields.n, "candidates": fields.candidates,
            "draft_steps": fields.draft_steps, "negative_prompt": fields.negative_prompt or "",
        }  # fmt: skip

    def _answering(self, fields: Answered, limit: int | None) -> Answering:
        most = self.serving.max_tokens
        tokens = min(Answering.max_new_tokens, most) if limit is None else limit
        self._at_most("max_tokens", tokens, most, "max_tokens")
        return Answering(tokens, **fields.model_dump(include=ANSWERS))

    def _size(self, text: str | None) -> tuple[int, int] | None:
        """(height, width), or None for the picture's own or the model's."""
        if text is None or text == "auto":
            return None
        match = SIZE.fullmatch(text)
        if match is None:
            raise refused(f"size is {text!r:.40}; give WIDTHxHEIGHT in pixels, such as 1024x768, or auto", "size")
        width, height = map(int, match.groups())
        self._at_most("the pixels of size", width * height, self.serving.max_pixels, "size")
        return check_size((height, width))

    def _picture(self, given: str | bytes, param: str, *, mask: bool = False) -> Image.Image:
        if isinstance(given, str):
            data = self.fetched[given] if given in self.fetched else from_data_url(given, param)
        else:
            data = given
        return read(data, param, self.serving.max_pixels, mask=mask)

    def _text(self, text: str | None, name: str) -> str:
        """Raises `ApiError` for one that is empty, or too long."""
        if text is None or not text.strip():
            raise refused(f"{name} is empty; say what is meant in words", name)
        self._check_texts({name: text})
        return text

    def _check_texts(self, texts: dict[str, str | None]) -> None:
        for name, text in texts.items():
            if text is not None:
                check_text(name, text)
                self._at_most(f"the characters of {name}", len(text), self.serving.max_characters, name)

    @staticmethod
    def _at_most(what: str, value: int, most: int, param: str) -> int:
        if value > most:
            raise refused(f"{what}: {value:,} are more than this server's {most:,}", param, "limit_exceeded")
        return value

    @staticmethod
    def _check_combination(fields: EditFields, wanted: list[str], pictures: int) -> None:
        """Raise `ApiError` for fields that do not go together."""
        if len(wanted) > 1:
            raise refused(f"{' and '.join(wanted)} cannot go together; make one edit after the other", wanted[1])
        if wanted and fields.prompt:
            raise refused(f"{wanted[0]} writes the prompt itself; leave out prompt", "prompt")
        if wanted and fields.mask is not None:
            raise refused(f"{wanted[0]} and mask cannot go together", "mask")
        owners = {"box": "move", "to": "move", "view": "rotate"}
        for name, owner in owners.items():
            if getattr(fields, name) is not None and owner not in wanted:
                raise refused(f"{name} goes with {owner}", name)
        if "move" in wanted and ((fields.box is None) == (fields.to is None) or pictures != 1):
            raise refused("move takes one picture, and either box or to", "move")

    def _units(self, arguments: dict[str, Any]) -> int:
        steps = arguments.get("steps") or self.steps
        drafts = arguments["draft_steps"]
        if drafts is None:
            return steps * arguments["count"] * arguments["candidates"]
        return drafts * arguments["candidates"] + steps

    def _together(self, kind: str, arguments: dict[str, Any], place: Any) -> Any:
        """What jobs that share a call have in common: all but texts, seeds and what the pictures show."""
        if self.serving.batch == 1 or place is not None or arguments["candidates"] > 1:
            return None
        own = {"images", "instruction", "prompt", "negative_prompt", "seed", "mask"}
        shared = frozenset((name, value) for name, value in arguments.items() if name not in own)
        sizes = tuple(picture.size for picture in arguments.get("images", ()))
        return kind, sizes, "mask" in arguments, shared


def addresses(fields: Fields) -> dict[str, str]:
    """The texts that stand for pictures in a request, each with its field."""
    if isinstance(fields, ChatFields):
        said = [each for each in fields.messages if isinstance(each, UserMessage)]
        return {address: "messages" for each in said for address in each.addresses}
    given = {name: getattr(fields, name, None) for name in ("image", "mask")}
    return {each: name for name, value in given.items() for each in listed(value) if isinstance(each, str)}


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _spatial(
    fields: EditFields, kind: str, pictures: list[Image.Image]
) -> tuple[str, list[Image.Image], tuple[str, str] | None]:
    """The sentence, the pictures with the box of a move, and an object and a place for which the box is yet to find."""
    if fields.move is not None:
        sentence = spatial.move_object(fields.move)
        if fields.to is not None:
            read_place(fields.to)
            return sentence, pictures, (fields.move, fields.to)
        return sentence, [spatial.draw_box(pictures[0], _box(fields.box))], None
    if fields.rotate is not None:
        return spatial.rotate_object(fields.rotate, fields.view or ""), pictures, None
    camera = fields.camera
    assert camera is not None, kind
    return spatial.camera(camera.yaw, camera.pitch, camera.zoom), pictures, None


def _box(given: str | Iterable[int] | None) -> list[int]:
    if isinstance(given, str):
        match = BOX.fullmatch(given)
        if match is None:
            raise refused(f"box is {given!r:.60}; give left,top,right,bottom in pixels", "box")
        return [int(corner) for corner in match.groups()]
    corners = list(given or ())
    if len(corners) != 4 or any(abs(corner) > 10**6 for corner in corners):
        raise refused("box is no list of four numbers: left, top, right, bottom in pixels", "box")
    return corners


def as_refusal(error: JoyImageError, names: Iterable[str]) -> Any:
    """What the library refuses, with the field that its message names first."""
    words = re.findall(r"\w+", str(error)[:200])
    known = set(names)
    return refused(str(error), next((word for word in words if word in known), None))
