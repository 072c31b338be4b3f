"""The fields of requests: OpenAI's, and what this model can do beside them."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict, create_model, field_validator, model_validator

from ...settings import MAX_REFERENCES, VIEWS, ZOOMS, Answering, Sampling

# Of the pictures in a request: bytes in a form, data URLs and addresses in JSON.
Upload = Annotated[Annotated[str, Strict()] | bytes, Field(union_mode="left_to_right")]
Uploads = Upload | Annotated[list[Upload], Field(min_length=1, max_length=MAX_REFERENCES)]
Number = Annotated[float, Field(allow_inf_nan=False)]

ADDRESS = "a data URL, or the address of a host that the server allows"
PICTURE = f"a file of the form, {ADDRESS}: PNG, JPEG or WebP"
NO_EFFECT = "taken, and without effect"
NO_CHATS = "the model was trained on no longer chats, and on no instructions beside the question"
OTHER_ROLES = ("system", "developer", "assistant", "tool")


class Fields(BaseModel):
    """What every request has in common: a field that does not exist is refused by name."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    model: str | None = Field(None, description="the name that /v1/models gives")
    user: str | None = Field(None, description=NO_EFFECT)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        """OpenAI's fields may be null, which is as if they were left out."""
        if not isinstance(given, dict):
            return given
        optional = {name for name, field in cls.model_fields.items() if not field.is_required()}
        return {name: value for name, value in given.items() if value is not None or name not in optional}


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


class CameraFields(BaseModel):
    """How the camera moves, in degrees."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

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


class TextPart(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    type: Literal["text"]
    text: str


class ImageUrl(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    url: str = Field(description=ADDRESS)
    detail: Literal["auto", "low", "high"] = Field("auto", description=NO_EFFECT)


class ImagePart(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    role: Literal["user"] = Field(description=f"one question with its pictures: {NO_CHATS}")
    content: str | list[Part]
    name: str | None = None


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    include_usage: Literal[False] = False
    include_obfuscation: bool = False


class ChatFields(Answered):
    """POST /v1/chat/completions"""

    messages: list[Message] = Field(min_length=1, max_length=1)
    max_tokens: int | None = Field(None, ge=1, description="length of the answer")
    max_completion_tokens: int | None = Field(None, ge=1, description="the same")
    n: Literal[1] = 1
    stream: bool = False
    stream_options: StreamOptions | None = None

    @field_validator("messages", mode="before")
    @classmethod
    def _one_question(cls, given: Any) -> Any:
        roles = [each.get("role") for each in given if isinstance(each, dict)] if isinstance(given, list) else []
        if len(roles) > 1 or any(role in OTHER_ROLES for role in roles):
            raise ValueError(f"send one message, of the role user: {NO_CHATS}")
        return given


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
