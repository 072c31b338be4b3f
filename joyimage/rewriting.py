"""Prompt rewriting: a clearer instruction from a server that speaks OpenAI's protocol, or from the encoder itself.

The server is named in the environment and nowhere else, so that no workflow or saved picture can name one or
hold a key: `JOYIMAGE_REWRITE_URL` (such as http://localhost:8000/v1), `JOYIMAGE_REWRITE_KEY`,
`JOYIMAGE_REWRITE_MODEL`.
"""

from __future__ import annotations

import base64
import io
import json
import os
import urllib.request
import warnings
from collections.abc import Sequence

from PIL import Image

from . import prompts
from .encoder import Encoder
from .errors import JoyImageError

TIMEOUT = 60  # seconds
MAX_REPLY = 1 << 20  # bytes


def rewrite(encoder: Encoder, prompt: str, images: Sequence[Image.Image] = ()) -> str:
    """`prompt` made clear and specific; on any failure a warning that says why, and the prompt unchanged.

    Raises `JoyImageError` for an empty prompt only.
    """
    if not prompt.strip():
        raise JoyImageError("the prompt to rewrite is empty")
    ask = _ask_server if os.environ.get("JOYIMAGE_REWRITE_URL") else encoder.answer_rewrite
    try:
        rewritten = prompts.parse_rewritten(ask(prompt, images))
        reason = 'the answer holds no {"Rewritten": "…"}'
    except (JoyImageError, OSError, RuntimeError) as error:
        rewritten, reason = None, f"{type(error).__name__}: {error}"
    if rewritten is None:
        warnings.warn(f"the prompt was not rewritten and is used unchanged: {reason}", stacklevel=2)
    return rewritten or prompt


def _ask_server(prompt: str, images: Sequence[Image.Image]) -> str:
    """The reply of the server in the environment. Raises `OSError` or `JoyImageError` when there is none."""
    url = os.environ["JOYIMAGE_REWRITE_URL"].rstrip("/") + "/chat/completions"
    if not url.startswith(("http://", "https://")):
        raise JoyImageError("JOYIMAGE_REWRITE_URL must begin with http:// or https://")
    body = {
        "model": os.environ.get("JOYIMAGE_REWRITE_MODEL", "default"),
        "messages": [
            {"role": "system", "content": prompts.rewriting_system(bool(images))},
            {"role": "user", "content": [*map(_image_part, images), {"type": "text", "text": prompt}]},
        ],
    }
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("JOYIMAGE_REWRITE_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        reply = response.read(MAX_REPLY)
    try:
        content = json.loads(reply)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        content = None
    if not isinstance(content, str):
        raise JoyImageError("the server's reply is not a chat completion")
    return content


def _image_part(image: Image.Image) -> dict:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
