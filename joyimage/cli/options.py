"""The parser: commands, groups of options, and what a value is read as. Defaults and help are those of the settings."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from .. import __version__
from ..download import FORMAT_WORDS, MODELS
from ..settings import (
    ATTENTIONS,
    AUTO,
    DTYPES,
    EXACT,
    PRODUCTS,
    SHORTCUTS,
    VIEWS,
    Answering,
    Sampling,
)
from ..waiting import LOAD_SECONDS
from .batch import add_batch
from .commands import (
    run_convert,
    run_demo,
    run_download,
    run_edit,
    run_generate,
    run_inspect,
    run_plan,
)
from .data import add_data
from .evaluation import add_evaluate
from .flags import add_base_size, add_setting, device_count, devices
from .serving import add_serve
from .training import add_train
from .understanding import run_ask, run_locate, run_reason, run_rewrite


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="joyimage",
        description="JoyAI-Image: edit pictures, make them from text, ask about them.",
        epilog="Weights: without any, a bundled tiny model is used, for trying the commands. `joyimage download edit` "
        "fetches those of the published model, `joyimage download plus` those of the one for several pictures.",
    )
    parser.add_argument("--version", action="version", version=f"joyimage {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    common = _common_options()
    weights = _weight_options()
    threads = _thread_options()
    networks = [common, weights, _lora_options(), threads]
    _add_edit(commands, [*networks, _speed_options(), _sampling_options()])
    _add_generate(commands, [*networks, _speed_options(), _sampling_options()])
    _add_ask(commands, networks)
    _add_locate(commands, networks)
    _add_rewrite(commands, networks)
    _add_reason(commands, networks)
    add_evaluate(commands, [*networks, _speed_options()])
    add_batch(commands, [*networks, _speed_options()], _size)
    inspect = commands.add_parser(
        "inspect", parents=[common], help="say what a weight file or model folder is, and how a picture was made"
    )
    inspect.add_argument("path", nargs="+", help="a file or folder")
    inspect.set_defaults(run=run_inspect)
    _add_convert(commands, [common, threads])
    _add_plan(commands, [common, weights])
    _add_download(commands, [common])
    add_train(commands, [common, weights, threads])
    add_data(commands, [common])
    add_serve(commands, [*networks, _speed_options()])
    demo = commands.add_parser(
        "demo", parents=[common, threads], help="edit three bundled pictures with the bundled model"
    )
    demo.add_argument("-o", "--output", type=Path, default=Path("demo"), help="folder for the pictures (demo)")
    demo.set_defaults(run=run_demo)
    return parser


def _common_options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    options.add_argument("--quiet", action="store_true", help="no progress bars")
    options.add_argument("--debug", action="store_true", help="print the traceback of an error")
    return options


def _thread_options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument(
        "--threads", type=_threads, metavar="N", help="of the processor (1 for small models, else all)"
    )
    return options


def _weight_options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    group = options.add_argument_group("weights")
    group.add_argument("-m", "--model", help='model folder, or "tiny" (default: $JOYIMAGE_MODEL, else "tiny")')
    group.add_argument("--mmdit", type=Path, help="MMDiT weights")
    group.add_argument("--vae", type=Path, help="VAE weights")
    group.add_argument("--encoder", type=Path, help="Qwen3-VL weights")
    group.add_argument("--tokenizer", type=Path, help="folder with the Qwen tokenizer's files")
    group.add_argument("--device", help="cpu, cuda, cuda:1 … (default: the GPU where there is one)")
    group.add_argument("--dtype", choices=DTYPES, help="precision of MMDiT and encoder (default: the files')")
    group.add_argument(
        "--products",
        choices=PRODUCTS,
        default=EXACT,
        help=f"how quantised weights multiply: 8bit rounds activations ({EXACT})",
    )
    group.add_argument("--theta", type=float, help="base of the rotary embedding; SpatialEdit's weights need 256")
    group.add_argument("--memory", help="what to take of the device, such as 12GB (default: all it needs)")
    return options


def _speed_options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    group = options.add_argument_group("speed")
    group.add_argument("--compile", action="store_true", help="compile the MMDiT's blocks, which takes a minute")
    group.add_argument("--attention", choices=ATTENTIONS, default=AUTO, help=f"what computes attention ({AUTO})")
    group.add_argument(
        "--guidance-devices", type=devices, metavar="A,B", help="two, each for one pass of guidance; 2: the first two"
    )
    group.add_argument(
        "--sequence-devices", type=devices, metavar="A,B,…", help="each for a part of the picture; N: the first N"
    )
    group.add_argument(
        "--load-seconds", type=int, default=LOAD_SECONDS, metavar="N",
        help=f"in which each process beside the command's own must have loaded the model ({LOAD_SECONDS})",
    )  # fmt: skip
    return options


def _lora_options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument(
        "--lora", type=_lora, action="append", default=[], metavar="FILE[:STRENGTH]", help="a LoRA (1); may be repeated"
    )
    return options


def _sampling_options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("-o", "--output", type=Path, help="PNG file, or a folder for several pictures")
    options.add_argument("-n", "--negative-prompt", help="what to stay away from")
    options.add_argument("--size", type=_size, metavar="HxW", help="height and width in pixels, multiples of 16")
    add_base_size(options)
    add_setting(options, Sampling, "steps")
    add_setting(options, Sampling, "guidance_scale", "-g")
    add_setting(options, Sampling, "rescale")
    low, high = Sampling.guidance_interval
    options.add_argument(
        "--guidance-interval", type=_pair_of_floats, default=(low, high), metavar="LOW,HIGH",
        help=f"{Sampling.purpose('guidance_interval')} ({low:g},{high:g})",
    )  # fmt: skip
    add_setting(options, Sampling, "shift")
    add_setting(options, Sampling, "schedule")
    options.add_argument("--sigmas", type=_floats, metavar="S,S,…", help=Sampling.purpose("sigmas"))
    options.add_argument("--timesteps", type=_floats, metavar="T,T,…", help=Sampling.purpose("timesteps"))
    add_setting(options, Sampling, "solver")
    _add_shortcuts(options)
    options.add_argument("--seed", type=int, default=0, help="seed of the first picture (0)")
    options.add_argument("--count", type=int, default=1, help="pictures per instruction (1)")
    options.add_argument(
        "--candidates", type=int, default=1, metavar="N", help="make up to N and let the model choose the best (1)"
    )
    options.add_argument(
        "--draft-steps", type=int, metavar="N", help="steps of candidates; the chosen one is made again by all (steps)"
    )
    options.add_argument(
        "--batch-size",
        type=int,
        default=1,
        metavar="N",
        help="pictures that share a forward, for small sizes (1)",
    )
    return options


def _add_shortcuts(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("fewer forwards, which changes results a little")
    add_setting(group, Sampling, "preset")
    group.add_argument("--fast", action="store_const", const="fast", dest="preset", help="the same as --preset fast")
    for name in SHORTCUTS:
        add_setting(group, Sampling, name).default = None  # so that one turned off is told from one left out


def _add_edit(commands, parents) -> None:
    edit = commands.add_parser("edit", parents=parents, help="edit pictures by instruction")
    edit.add_argument(
        "inputs", nargs="+", metavar="IMAGE… INSTRUCTION", help="one to six pictures, then what to do with them"
    )
    edit.add_argument("-i", "--instruction", action="append", default=[], help="an instruction; may be repeated")
    edit.add_argument("--each", action="store_true", help="edit each picture by itself, not all into one")
    edit.add_argument("--exact", action="store_true", help="keep the picture's own size, to a multiple of 16")
    add_setting(edit, Sampling, "strength")
    parts = edit.add_argument_group("editing a part, or around the picture; without an instruction it is described")
    parts.add_argument("--mask", type=Path, metavar="FILE", help="change what is white in it, and keep all else")
    parts.add_argument("--outpaint", type=_sides, metavar="L,T,R,B", help="pixels to add on each side")
    spatial_options = edit.add_argument_group("spatial editing, instead of an instruction")
    spatial_options.add_argument("--move", metavar="OBJECT", help="move an object to where --box or --to says")
    spatial_options.add_argument("--box", type=_box, metavar="L,T,R,B", help="box for --move, in pixels")
    spatial_options.add_argument("--to", metavar="PLACE", help='place for --move in words, as in "next to the plate"')
    spatial_options.add_argument("--rotate", metavar="OBJECT", help="rotate an object to the view given by --view")
    spatial_options.add_argument("--view", help=", ".join(VIEWS))
    spatial_options.add_argument(
        "--camera", metavar="YAW,PITCH[,ZOOM]", help="turn the camera by degrees; zoom in, out or unchanged"
    )
    edit.set_defaults(run=run_edit)


def _add_generate(commands, parents) -> None:
    generate = commands.add_parser("generate", parents=parents, help="make pictures from text")
    generate.add_argument("prompt", nargs="+", help="one picture for each")
    generate.set_defaults(run=run_generate, strength=Sampling.strength)


def _add_ask(commands, parents) -> None:
    ask = commands.add_parser("ask", parents=parents, help="ask about pictures")
    ask.add_argument(
        "inputs", nargs="+", metavar="IMAGE… [QUESTION]", help="pictures, then the question (a description)"
    )
    for name in ("max_new_tokens", "temperature", "top_p", "top_k", "seed"):
        add_setting(ask, Answering, name)
    ask.set_defaults(run=run_ask)


def _add_reason(commands, parents) -> None:
    reason = commands.add_parser(
        "reason",
        parents=parents,
        help="answer a question from new views of a picture's scene",
        description="The model asks for views of the scene, the editor renders them, and the model answers from all.",
    )
    reason.add_argument("image", help="a picture")
    reason.add_argument("question", help="such as: How many cups are behind the box?")
    reason.add_argument("--views", type=int, default=1, metavar="N", help="views at most in each turn (1)")
    reason.add_argument("--turns", type=int, default=1, metavar="N", help="times that the model may ask for views (1)")
    reason.add_argument("-o", "--output", type=Path, help="folder for the views (they are not kept)")
    add_setting(reason, Sampling, "steps")
    add_setting(reason, Sampling, "guidance_scale", "-g")
    for name in ("max_new_tokens", "temperature", "top_p", "top_k", "seed"):
        add_setting(reason, Answering, name)
    reason.set_defaults(run=run_reason)


def _add_locate(commands, parents) -> None:
    locate = commands.add_parser(
        "locate",
        parents=parents,
        help="find something in a picture",
        description="Prints the boxes around it, one a line, as left,top,right,bottom in pixels of the picture: the "
        "--box that edit --move takes.",
    )
    locate.add_argument("image", metavar="IMAGE", help="a picture")
    locate.add_argument("object", metavar="OBJECT", help='what to find, as in "red cup"')
    locate.add_argument("--mask", type=Path, metavar="FILE", help="write a mask as PNG, white inside the boxes")
    locate.add_argument("--draw", type=Path, metavar="FILE", help="write the picture as PNG, with the boxes drawn")
    locate.set_defaults(run=run_locate)


def _add_rewrite(commands, parents) -> None:
    rewrite = commands.add_parser("rewrite", parents=parents, help="make a prompt clear and specific")
    rewrite.add_argument("prompt")
    rewrite.add_argument("--image", type=Path, action="append", default=[], help="picture that the prompt is about")
    rewrite.set_defaults(run=run_rewrite)


def _add_convert(commands, parents) -> None:
    convert = commands.add_parser(
        "convert",
        parents=parents,
        help="write weights in another format or layout",
        description="Matrices are quantised; what is small or sensitive keeps its precision, and the report says why.",
    )
    convert.add_argument("path", help="a file, a part's folder or a model folder")
    convert.add_argument("output", help="a .safetensors or .gguf file for one part, else a folder")
    convert.add_argument("--format", metavar="FORMAT", help="fp32, bf16, fp16, fp8, int8, gguf:Q4_K … (as they are)")
    convert.add_argument("--layout", default="comfy", help="comfy or diffusers (comfy)")
    convert.set_defaults(run=run_convert)


def _add_plan(commands, parents) -> None:
    plan = commands.add_parser("plan", parents=parents, help="say what will be where within a --memory")
    plan.add_argument("--size", type=_size, default=(1024, 1024), metavar="HxW", help="of the picture (1024x1024)")
    plan.add_argument("--references", type=int, default=1, help="pictures that go in (1)")
    add_setting(plan, Sampling, "reference_every")
    plan.add_argument(
        "--guidance-devices", type=device_count, metavar="2", help="for each pass of guidance on a device of its own"
    )
    plan.add_argument("--sequence-devices", type=device_count, metavar="N", help="for each picture on so many devices")
    plan.set_defaults(run=run_plan)


def _add_download(commands, parents) -> None:
    download = commands.add_parser(
        "download",
        parents=parents,
        help="fetch the published weights",
        description="Fetches a model's three files from the Hugging Face Hub, or from the hub in $HF_ENDPOINT, with "
        "the token in $HF_TOKEN where there is one. Says first what comes; goes on where an earlier call stopped.",
    )
    download.add_argument("model", choices=MODELS, help="edit works on one picture, plus on up to six")
    download.add_argument("--format", choices=FORMAT_WORDS, default="int8", help="bf16 is twice as large (int8)")
    download.add_argument(
        "--to", type=Path, default=Path("models"), metavar="FOLDER", help="such as ComfyUI's models folder (models)"
    )
    download.add_argument("--yes", action="store_true", help="do not ask")
    download.set_defaults(run=run_download)


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, such as 1024x768")
    return int(height), int(width)


def _threads(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of threads, such as 4")
    return int(text)


def _lora(text: str) -> tuple[str, float]:
    """FILE or FILE:STRENGTH; a colon before what is no number is part of the name."""
    file, colon, strength = text.rpartition(":")
    try:
        return (file, float(strength)) if colon else (text, 1.0)
    except ValueError:
        return text, 1.0


def _floats(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers with commas between") from None


def _pair_of_floats(text: str) -> tuple[float, float]:
    values = _floats(text)
    if len(values) != 2:
        raise argparse.ArgumentTypeError(f"{text!r} is not two numbers with a comma between")
    return values[0], values[1]


def _sides(text: str) -> tuple[int, ...]:
    try:
        sides = tuple(map(int, text.split(",")))
    except ValueError:
        sides = ()
    if len(sides) != 4:
        raise argparse.ArgumentTypeError(f"{text!r} is not LEFT,TOP,RIGHT,BOTTOM in whole pixels")
    return sides


def _box(text: str) -> tuple[float, ...]:
    values = _floats(text)
    if len(values) != 4 or not all(map(math.isfinite, values)):
        raise argparse.ArgumentTypeError(f"{text!r} is not LEFT,TOP,RIGHT,BOTTOM in pixels")
    return tuple(values)
