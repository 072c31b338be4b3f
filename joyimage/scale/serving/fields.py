"""The fields of requests: OpenAI's, and what this model can do beside them."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    StringConstraints,
    WithJsonSchema,
    create_model,
    field_validator,
    model_validator,
)

from ...settings import MAX_REFERENCES, VIEWS, ZOOMS, Answering, Sampling

# Of the pictures in a request: bytes in a form, data URLs and addresses in JSON.
Upload = Annotated[Annotated[str, Strict()] | bytes, Field(union_mode="left_to_right")]
Uploads = Upload | Annotated[list[Upload], Field(min_length=1, max_length=MAX_REFERENCES)]
MOST_STOPS = 4  # as OpenAI has it
Stop = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Stops = Annotated[list[Stop], Field(max_length=MOST_STOPS)]
Number = Annotated[float, Field(allow_inf_nan=False)]

ADDRESS = "a data URL, or the address of a host that the server allows"
PICTURE = f"a file of the form, {ADDRESS}: PNG, JPEG or WebP"
NO_EFFECT = "taken, and without effect"
MOST_MESSAGES = 200


class Exact(BaseModel):
    """A field that does not exist is refused by name, and null is as if a field were left out."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        optional = {name for name, field in cls.model_fields.items() if not field.is_required()}
        return {name: value for name, value in given.items() if value is not None or name not in optional}


class Fields(Exact):
    """What every request has in common."""

    model: str | None = Field(None, description="the name that /v1/models gives")
    user: str | None = Field(None, description=NO_EFFECT)
    safety_identifier: str | None = Field(None, description=NO_EFFECT)


def _sampling() -> dict[str, Any]:
    """The settings of sampling that a request can give; left out, the model's own hold."""
    found: dict[str, Any] = {}
    for each in fields(Sampling):
        kind: Any
        if "choices" in each.metadata:
            kind = str
        elif "range" in each.metadata:
            kind = int if isinstance(each.metadata["range"].step, int) else Number
        else:
            continue  # what no widget offers either
        found[each.name] = (kind | None, Field(None, description=Sampling.help(each.name)))
    return found


# solver, schedule, steps, guidance_scale … as joyimage.settings has them
Sampled: Any = create_model("Sampled", __base__=Fields, **_sampling())
SAMPLED = tuple(_sampling())


class Made(Sampled):
    """Requests that make pictures."""

    n: int = Field(1, ge=1, description="pictures, of the seeds from `seed` on")
    size: str | None = Field(None, description="WIDTHxHEIGHT in multiples of 16, or auto")
    response_format: Literal["b64_json"] = "b64_json"
    output_format: Literal["png", "jpeg", "webp"] = "png"
    output_compression: int = Field(90, ge=1, le=100, description="quality of JPEG and WebP")
    background: Literal["auto", "opaque"] = Field("auto", description=NO_EFFECT)
    quality: Literal["auto", "standard", "low", "medium", "high", "hd"] = Field("auto", description=NO_EFFECT)
    moderation: Literal["auto", "low"] = Field("auto", description=NO_EFFECT)
    stream: Literal[False] = Field(False, description="pictures come whole")
    seed: int = Field(0, description="0 to 2^64 - 1; the same seed gives the same picture")
    negative_prompt: str | None = Field(None, description="what to stay away from")
    candidates: int = Field(1, ge=1, description="make so many, and let the model choose the best")
    draft_steps: int | None = Field(None, description="steps of candidates; the chosen one is made again by all")


class GenerateFields(Made):
    """POST /v1/images/generations"""

    prompt: str = Field(description="what to make")
    style: Literal["vivid", "natural"] | None = Field(None, description=NO_EFFECT)


class CameraFields(Exact):
    """How the camera moves, in degrees."""

    yaw: Number = 0.0
    pitch: Number = 0.0
    zoom: Literal[ZOOMS] = "unchanged"  # pyright: ignore[reportInvalidTypeForm] - a tuple of words, as Literal takes it


class EditFields(Made):
    """POST /v1/images/edits. Instead of a prompt: move with box or to, rotate with view, or camera."""

    image: Uploads = Field(description=f"one to {MAX_REFERENCES} pictures, each {PICTURE}")
    mask: Upload | None = Field(
        None, description="as large as the last picture; its white, or transparent, part changes"
    )
    prompt: str | None = Field(None, description="what to change")
    move: str | None = Field(None, description="an object to move")
    box: str | list[int] | None = Field(None, description="left, top, right, bottom in pixels: where it is to go")
    to: str | None = Field(None, description="the same in words, such as: next to the plate")
    rotate: str | None = Field(None, description="an object to rotate")
    view: str | None = Field(None, description=f"its side to show: {', '.join(VIEWS)}")
    camera: CameraFields | None = Field(None, description="how to move the camera")
    input_fidelity: Literal["low", "high"] | None = Field(None, description=NO_EFFECT)


class Answered(Fields):
    """How an answer's words are drawn."""

    temperature: float = Field(Answering.temperature, allow_inf_nan=False, description=Answering.help("temperature"))
    top_p: float = Field(Answering.top_p, allow_inf_nan=False, description="share of the likeliest words")
    top_k: int = Field(Answering.top_k, description="number of the likeliest words")
    seed: int = Field(Answering.seed, description="the same seed gives the same words")


# What a chat may ask for in OpenAI's protocol, and this server can do in one way only; the first is the default.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,), "frequency_penalty": (0,), "presence_penalty": (0,), "logit_bias": ({},), "logprobs": (False,),
    "top_logprobs": (0,), "response_format": ({"type": "text"},), "modalities": (["text"],),
    "tool_choice": ("none", "auto"), "reasoning_effort": ("none",), "store": (False,),
}  # fmt: skip


def only(values: tuple[Any, ...]) -> Any:
    """The type of a field that takes these values and no others."""

    def check(given: Any) -> Any:
        if not any(given == value and isinstance(given, bool) == isinstance(value, bool) for value in values):
            told = " or ".join(json.dumps(value) for value in values)
            raise ValueError(f"this server can do no other than {told}; leave it out")
        return given

    return Annotated[Any, AfterValidator(check), WithJsonSchema({"enum": list(values)})]


def _neutral() -> dict[str, Any]:
    return {name: (only(values), values[0]) for name, values in NEUTRAL.items()}


Neutral: Any = create_model("Neutral", __base__=Answered, **_neutral())


class TextPart(Exact):
    type: Literal["text"]
    text: str


class ImageUrl(Exact):
    url: str = Field(description=ADDRESS)
    detail: Literal["auto", "low", "high", "original"] = Field("auto", description=NO_EFFECT)


class ImagePart(Exact):
    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class Said(Exact):
    """What messages have in common."""

    content: Any
    name: str | None = Field(None, description=NO_EFFECT)

    @property
    def text(self) -> str:
        parts = [self.content] if isinstance(self.content, str) else self.content
        return "\n".join(getattr(part, "text", part) for part in parts if not isinstance(part, ImagePart))


class SystemMessage(Said):
    role: Literal["system", "developer"]
    content: str | list[TextPart]


class UserMessage(Said):
    role: Literal["user"]
    content: str | list[Part] = Field(description="the pictures of a message come before its texts")

    @property
    def addresses(self) -> list[str]:
        parts = [] if isinstance(self.content, str) else self.content
        return [part.image_url.url for part in parts if isinstance(part, ImagePart)]


class AssistantMessage(Said):
    """An answer, as clients send it back: with fields that hold nothing."""

    role: Literal["assistant"]
    content: str | list[TextPart]
    refusal: None = None
    audio: None = None
    function_call: None = None
    tool_calls: list[Any] = Field([], max_length=0)
    annotations: list[Any] = Field([], max_length=0)


MessageFields = Annotated[SystemMessage | UserMessage | AssistantMessage, Field(discriminator="role")]


class StreamOptions(Exact):
    """`include_usage` adds the numbers of tokens in a last piece of their own; the other is taken without effect."""

    include_usage: bool = False
    include_obfuscation: bool = False


class ChatFields(Neutral):
    """POST /v1/chat/completions"""

    messages: list[MessageFields] = Field(
        min_length=1, max_length=MOST_MESSAGES, description="one of the system may come first; the last is answered"
    )
    max_tokens: int | None = Field(None, ge=1, description="length of the answer")
    max_completion_tokens: int | None = Field(None, ge=1, description="the same")
    stop: Stop | Stops = Field([], description="words before which the answer ends")
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    verbosity: Literal["low", "medium", "high"] = Field("medium", description=NO_EFFECT)
    metadata: dict[str, str] = Field({}, description=NO_EFFECT)
    parallel_tool_calls: bool = Field(False, description=NO_EFFECT)
    prompt_cache_key: str | None = Field(None, description=NO_EFFECT)
    prompt_cache_retention: str | None = Field(None, description=NO_EFFECT)
    service_tier: str | None = Field(None, description=NO_EFFECT)

    @field_validator("messages")
    @classmethod
    def _in_order(cls, messages: list[Any]) -> list[Any]:
        if any(isinstance(each, SystemMessage) for each in messages[1:]):
            raise ValueError("there may be one message of the system, as the first")
        if not isinstance(messages[-1], UserMessage):
            raise ValueError("the last message is the one that is answered, and must be of the role user")
        return messages


class LocateFields(Fields):
    """POST /v1/locate"""

    image: Upload = Field(description=PICTURE)
    object: str = Field(description="what to find, such as: red cup")


class ReasonFields(Answered):
    """POST /v1/reason"""

    image: Upload = Field(description=PICTURE)
    question: str
    views: int = Field(1, description="at most, in each turn")
    turns: int = Field(1, description="times that the model may ask for views")
    steps: int | None = Field(None, description=Sampling.help("steps"))
    guidance_scale: Number = Field(Sampling.guidance_scale, description=Sampling.help("guidance_scale"))
    max_tokens: int | None = Field(None, ge=1, description="length of the answer")
