"""What is said to the encoder, word for word: the system texts, and the rewriter's request and reply."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from . import spatial
from .errors import JoyImageError
from .settings import VIEWS, ZOOMS

# The MMDiT was trained on this text as it stands, with its leading space, backslash and letter n.
CONDITIONING_SYSTEM = (
    r" \nDescribe the image by detailing the color, shape, size, texture, quantity, text, "
    "spatial relationships of the objects and background:"
)
CHAT_SYSTEM = "You are a helpful assistant."

# Sentences that the MMDiT was trained on word for word, as the spatial ones; a caption of the picture ends the two.
COLOURISE = "Restore and colorize the photo."
INPAINT = "Perform inpainting on this image. The original caption is: "
OUTPAINT = "Extend the image beyond its boundaries using outpainting. The original caption is: "

DEFAULT_QUESTION = "Describe this image in detail."

# Questions of the judge of edits and of reasoning with views. The bundled model was taught them word for word.
YES_OR_NO = ("yes", "no")


def edit_question(instruction: str, references: int = 1) -> str:
    """What the judge asks of an edit's pictures and its result, which comes after them."""
    result = "second" if references == 1 else "last"
    return (
        f"Does the {result} picture show the first after this edit, and nothing else changed? {instruction} "
        "Answer yes or no."
    )


def picture_question(prompt: str) -> str:
    """What the judge asks of a picture made from text."""
    return f"Does this picture show exactly this? {prompt} Answer yes or no."


def view_question(obj: str) -> str:
    """Which of `spatial.VIEWS` is seen of an object."""
    return f"From which side is the {obj} seen?"


JUDGING_SYSTEM = """\
You judge pictures made by an image model. First come the pictures that it was given, if any, then its result; the \
question says what was asked for. Look at whether it was done, whether anything else changed, and at faults.
Answer with nothing but a JSON object, with a score from 0 (wrong) to 100 (nothing to improve) and a short reason:
{"score": 85, "reason": "the cup is where it should be, but its handle is missing"}"""


def parse_score(text: str) -> tuple[float, str]:
    """The score, from 0 to 1, and the reason in a judge's answer; of several the last.

    Raises `JoyImageError` for an answer without a score from 0 to 100.
    """
    for match in reversed(list(re.finditer(r"\{[^{}]*\}", text.rpartition("</think>")[2]))):
        try:
            said = json.loads(match[0], strict=False)
        except ValueError:
            continue
        score = said.get("score")
        if isinstance(score, int | float) and not isinstance(score, bool) and 0 <= score <= 100:
            return score / 100, " ".join(str(said.get("reason", "")).split())[:200]
    raise JoyImageError('the answer holds no {"score": …} from 0 to 100')


NAMES_QUESTION = "Name the objects in the picture, separated by commas."

PLANNING_SYSTEM = """\
You choose views of a scene that help to answer a question about a picture of it. A view is a camera motion from the \
picture: yaw in degrees (positive to the right), pitch in degrees (positive up), zoom (in, out or unchanged).
Answer with nothing but JSON: a list of the views, or "none" if the picture is enough:
[{"yaw": 45, "pitch": 0, "zoom": "unchanged"}]"""


def planning_question(question: str, views: int) -> str:
    """A request for a plan of at most so many views."""
    return f"At most {views} {'view' if views == 1 else 'views'}. Question: {question}"


def described_view(yaw: float, pitch: float, zoom: str) -> str:
    """A camera motion as `question_with_views` tells it."""
    return f"yaw {yaw:g}, pitch {pitch:g}, zoom {zoom}"


def question_with_views(question: str, views: Sequence[str]) -> str:
    """A question whose pictures are the first and, after it, these views of the same scene, each told in words."""
    told = " ".join(f"Picture {n} shows the scene after this: {view}." for n, view in enumerate(views, start=2))
    return f"{told} {question}" if views else question


def _template(pieces: Sequence[str]) -> str:
    """A trained sentence with <object> for what is to be filled in."""
    return re.sub(spatial.FIELD, r"<\1>", "".join(pieces))


_REWRITE_RULES = """\
Rules:
- Keep the user's intent. Add nothing that contradicts it and drop nothing that was asked for; keep every number.
- Resolve vague words into concrete, visible ones. Contradictory wishes: keep the more plausible reading.
- Text to be rendered in the picture stays exactly as given, in its own language, inside English double quotes ("). \
Do not invent such text.
- Write in the language of the user's prompt, as plain prose without lists. Only the sentences that \
are given exactly are always English.
- Answer with nothing but a JSON object of this form, with double quotes inside the string escaped as \\" and line \
breaks as \\n:
{"Rewritten": "the rewritten prompt"}"""

_REWRITE_EDIT = f"""\
You turn short requests for changing pictures into precise editing instructions. First come the pictures, numbered in \
the order you see them, then the user's request. Find out which kind of task it is, and write what that kind needs:
- Adding, deleting, replacing: a request that is clear is only polished. To a vague one add the least that makes it \
clear: what the object looks like, where it is, what takes its place. Everything else stays as it is.
- Text: say which text is written, replaced or removed, and where; its font, colour and size stay unless the user \
names others.
- People: the person stays the same person, with face, hair, figure, pose and expression, unless one of these is to \
change. Changes of the face, make-up and beauty are subtle and natural.
- Style and enhancement: name the style, and two or three visible traits of it; what is shown and where stays. To give \
colours to an old or black-and-white photo, write exactly: {COLOURISE}
- Filling: for blank, masked or damaged parts of the picture write "{INPAINT.strip()}", for a picture that is to reach \
beyond its edges "{OUTPAINT.strip()}", and after it one or two sentences that describe the whole picture as it should \
be, the new parts too.
- Moving an object into a red box that is drawn in the picture, exactly: \
{_template(spatial.MOVE)} If the picture has no red box, do not speak of one: say in plain words \
where the object goes.
- Turning an object so that another of its sides is seen, exactly: {_template(spatial.ROTATE)} \
The view is one of: {", ".join(VIEWS)}. Left and right are the object's own.
- Moving the camera or the viewpoint, exactly these four lines:
{_template(spatial.CAMERA)}
Yaw is in degrees, positive around the scene to the right, negative to the left; pitch is positive upwards, as for a \
look from above, and negative downwards. A number that the user gives is kept. Zoom is one of: {", ".join(ZOOMS)}. \
What is not asked for is 0, or unchanged.
A sentence that is given exactly stands alone, with nothing before or after it; only what stands in <> is filled in, \
in English. A request that is such a sentence already comes back as it is."""

_REWRITE_GENERATE = """\
You turn short ideas into prompts for a text-to-image model. Describe one picture: the main subject and its looks, \
what it does, the surroundings, the composition and viewpoint, the light and colours, and the style or medium. \
Where the user gave no detail, choose one that suits the idea. Three to six sentences are enough."""


BROKEN = re.compile(r'\{\s*"Rewritten"\s*:\s*"')  # the start of a reply that is no valid JSON


def rewriting_system(editing: bool) -> str:
    """The rewriter's system text, for a prompt that comes with images (`editing`) or alone."""
    return f"{_REWRITE_EDIT if editing else _REWRITE_GENERATE}\n\n{_REWRITE_RULES}"


def parse_rewritten(text: str) -> str | None:
    """The prompt in a reply like `{"Rewritten": "…"}`, whatever stands around it; None if there is none.

    Thoughts, up to a closing `</think>` or from a `<think>` that is never closed, do not count, and of several objects
    the last does: replies quote the form before they fill it in. They also quote words to render and forget to escape
    the quotes, so what is no valid JSON is read once more up to its last quote and brace.
    """
    text = text.rpartition("</think>")[2].partition("<think>")[0]
    decoder = json.JSONDecoder(strict=False)
    found, broken, position = None, None, 0
    while (brace := text.find("{", position)) >= 0:
        try:
            reply, position = decoder.raw_decode(text, brace)
            if isinstance(reply.get("Rewritten"), str):
                found, broken = reply["Rewritten"], None
        except (json.JSONDecodeError, RecursionError):
            position = brace + 1
            broken = BROKEN.match(text, brace) or broken
    loose = _up_to_the_last_quote(text[broken.end() :], decoder) if broken else None
    return (loose or found or "").strip() or None


def _up_to_the_last_quote(text: str, decoder: json.JSONDecoder) -> str | None:
    """A string of JSON, without its first quote, whose inner quotes may not be escaped."""
    inner = re.match(r'(.*)"\s*\}', text, re.DOTALL)
    if inner is None:
        return None
    try:
        return decoder.decode('"' + re.sub(r'(?<!\\)"', r"\"", inner[1]) + '"')
    except json.JSONDecodeError:
        return None
