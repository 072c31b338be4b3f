"""ComfyUI nodes for JoyAI-Image. ComfyUI imports this folder; the library in `joyimage/` stands without it."""

from __future__ import annotations

WEB_DIRECTORY = "./web"
OLDEST_COMFYUI = "0.33.0"  # the oldest that is tested


async def comfy_entrypoint():
    from comfyui_version import __version__ as version  # here: this file is importable where there is no ComfyUI

    if [*map(int, version.split(".")[:3])] < [*map(int, OLDEST_COMFYUI.split("."))]:
        raise RuntimeError(f"needs ComfyUI {OLDEST_COMFYUI} or newer and this is {version}: update ComfyUI")
    from .nodes import JoyImageExtension

    return JoyImageExtension()
