"""ComfyUI nodes for JoyAI-Image. ComfyUI imports this folder; the library in `joyimage/` stands without it."""

from __future__ import annotations

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    from .nodes import JoyImageExtension  # here: this file is importable where there is no ComfyUI

    return JoyImageExtension()
