"""The command line: `joyimage edit | generate | ask | rewrite | inspect | convert | plan | download | demo`."""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path

from . import __version__, download, spatial
from .errors import JoyImageError, MissingFileError
from .settings import (
    AUTO,
    BASE_SIZES,
    DTYPES,
    VIEWS,
    Answering,
    Sampling,
    Settings,
    check_base_size,
    check_output,
    check_seed,
)

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
# Options of `edit` and `generate` that go into the picture's metadata and to the library under the same name.
SAMPLING = (
    "negative_prompt", "steps", "guidance_scale", "rescale", "guidance_interval", "shift", "schedule", "sigmas",
    "timesteps", "solver", "seed", "count", "strength",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 input that cannot be used, 130 interrupted."""
    options = build_parser().parse_args(argv)
    warnings.showwarning = lambda message, *_, **__: print(f"joyimage: note: {message}", file=sys.stderr)
    try:
        options.run(options)
        return OK
    except KeyboardInterrupt as stop:
        print(f"joyimage: interrupted; {str(stop) or 'nothing half-written is left'}", file=sys.stderr)
        return INTERRUPTED
    except (JoyImageError, OSError) as error:
        return _report(error, str(error), BAD_INPUT, options.debug)
    except Exception as error:  # the last resort of a program: one line for people, the traceback with --debug
        message = f"{type(error).__name__}: {error} (run again with --debug for the traceback)"
        return _report(error, message, FAILED, options.debug)


def _report(error: Exception, message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    print(f"joyimage: error: {' '.join(message.split())}", file=sys.stderr)
    return code


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
    _add_edit(commands, [*networks, _sampling_options()])
    _add_generate(commands, [*networks, _sampling_options()])
    _add_ask(commands, networks)
    _add_rewrite(commands, networks)
    inspect = commands.add_parser("inspect", parents=[common], help="say what a weight file or model folder is")
    inspect.add_argument("path", nargs="+", help="a file or folder")
    inspect.set_defaults(run=run_inspect)
    _add_convert(commands, [common, threads])
    _add_plan(commands, [common, weights])
    download.add_command(commands, [common])
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
    group.add_argument("--memory", help="what to take of the device, such as 12GB (default: all it needs)")
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
    sizes = f"{', '.join(map(str, BASE_SIZES[:-1]))} or {BASE_SIZES[-1]}"
    options.add_argument(
        "--base-size", type=_base_size, default=AUTO, metavar="N",
        help=f"{sizes} ({AUTO}: the model's own, {BASE_SIZES[-1]} or tiny's {BASE_SIZES[0]})",
    )  # fmt: skip
    _add_setting(options, Sampling, "steps")
    _add_setting(options, Sampling, "guidance_scale", "-g")
    _add_setting(options, Sampling, "rescale")
    low, high = Sampling.guidance_interval
    options.add_argument(
        "--guidance-interval", type=_pair_of_floats, default=(low, high), metavar="LOW,HIGH",
        help=f"{Sampling.purpose('guidance_interval')} ({low:g},{high:g})",
    )  # fmt: skip
    _add_setting(options, Sampling, "shift")
    _add_setting(options, Sampling, "schedule")
    options.add_argument("--sigmas", type=_floats, metavar="S,S,…", help=Sampling.purpose("sigmas"))
    options.add_argument("--timesteps", type=_floats, metavar="T,T,…", help=Sampling.purpose("timesteps"))
    _add_setting(options, Sampling, "solver")
    options.add_argument("--seed", type=int, default=0, help="seed of the first picture (0)")
    options.add_argument("--count", type=int, default=1, help="pictures per instruction (1)")
    return options


def _add_setting(parser: argparse.ArgumentParser, settings: type[Settings], name: str, *short: str) -> None:
    """An option for a setting: its name, default and help."""
    default = getattr(settings, name)
    parser.add_argument(
        *short, f"--{name.replace('_', '-')}", type=type(default), default=default, help=settings.help(name)
    )


def _add_edit(commands, parents) -> None:
    edit = commands.add_parser("edit", parents=parents, help="edit pictures by instruction")
    edit.add_argument(
        "inputs", nargs="+", metavar="IMAGE… INSTRUCTION", help="one to six pictures, then what to do with them"
    )
    edit.add_argument("-i", "--instruction", action="append", default=[], help="an instruction; may be repeated")
    edit.add_argument("--each", action="store_true", help="edit each picture by itself, not all into one")
    edit.add_argument("--exact", action="store_true", help="keep the picture's own size, to a multiple of 16")
    _add_setting(edit, Sampling, "strength")
    spatial_options = edit.add_argument_group("spatial editing, instead of an instruction")
    spatial_options.add_argument("--move", metavar="OBJECT", help="move an object into the box given by --box")
    spatial_options.add_argument("--box", type=_box, metavar="L,T,R,B", help="box for --move, in pixels")
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
        _add_setting(ask, Answering, name)
    ask.set_defaults(run=run_ask)


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
    plan.set_defaults(run=run_plan)


def run_edit(options) -> None:
    pictures, instructions, names = _edit_inputs(options)
    parameters = _checked(options)
    pictures = _loaded(pictures)
    edits = max(len(instructions), len(names))
    paths = _output_paths(options.output, f"{Path(options.inputs[0]).stem}-edit", edits * options.count)
    model = _load(options)
    started = time.perf_counter()
    results = model.edit(
        pictures,
        instructions,
        size=options.size,
        base_size=None if options.exact else options.base_size,
        progress=not options.quiet,
        **parameters,
    )
    _save(options, results, paths, instructions, names, parameters, time.perf_counter() - started)


def run_generate(options) -> None:
    parameters = _checked(options)
    paths = _output_paths(options.output, "picture", len(options.prompt) * options.count)
    model = _load(options)
    started = time.perf_counter()
    results = model.generate(
        options.prompt, size=options.size, base_size=options.base_size, progress=not options.quiet, **parameters
    )
    _save(options, results, paths, options.prompt, [[]], parameters, time.perf_counter() - started)


def run_ask(options) -> None:
    pictures, question = options.inputs, None
    if not Path(pictures[-1]).is_file():
        *pictures, question = pictures
    Answering(options.max_new_tokens, options.temperature, options.top_p, options.top_k, options.seed)
    loaded = _loaded(pictures)
    show = None if options.json else lambda text: print(text, end="", flush=True)
    answer = _load(options).ask(
        loaded,
        question,
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        top_k=options.top_k,
        seed=options.seed,
        on_text=show,
    )
    print(json.dumps({"question": question, "images": pictures, "answer": answer}) if options.json else "")


def run_rewrite(options) -> None:
    rewritten = _load(options).rewrite(options.prompt, options.image)
    print(json.dumps({"prompt": options.prompt, "rewritten": rewritten}) if options.json else rewritten)


def run_inspect(options) -> None:
    from . import checkpoints

    reports = [checkpoints.inspect(path) for path in options.path]
    if options.json:
        print(json.dumps([report.as_dict() for report in reports], indent=2))
    else:
        print("\n\n".join(map(str, reports)))


def run_convert(options) -> None:
    from .checkpoints import convert

    _use_threads(options.threads)
    written = convert(
        options.path, options.output, format=options.format, layout=options.layout, progress=not options.quiet
    )
    if options.json:
        print(json.dumps([vars(file) for file in written], indent=2))
    else:
        print("\n".join(map(str, written)))


def run_plan(options) -> None:
    import torch

    from .planning import plan_model

    if options.memory is None:
        raise JoyImageError("plan needs a budget, such as --memory 12GB")
    plan = plan_model(
        _model_name(options),
        memory=options.memory,
        mmdit=options.mmdit,
        vae=options.vae,
        encoder=options.encoder,
        device=options.device or "cuda",
        dtype=getattr(torch, options.dtype) if options.dtype else None,
        size=options.size,
        references=options.references,
    )
    print(json.dumps(plan.as_dict(), indent=2) if options.json else plan)


def run_demo(options) -> None:
    from .demo import run

    _use_threads(options.threads or 1)
    run(options.output, quiet=options.quiet, as_json=options.json)


def _edit_inputs(options) -> tuple[list, list[str], list[list[str]]]:
    """Pictures and instructions of `edit`, and the names of each edit's pictures.

    Spatial options bring the instruction, and draw the box.
    """
    wanted = [name for name in ("move", "rotate", "camera") if getattr(options, name) is not None]
    if len(wanted) > 1:
        raise JoyImageError(f"--{' and --'.join(wanted)} cannot go together; run one edit after the other")
    if wanted and options.instruction:
        raise JoyImageError(f"--{wanted[0]} writes the instruction itself; leave out --instruction")
    files, instructions = options.inputs, options.instruction
    if not wanted and not instructions:
        files, instructions = files[:-1], files[-1:]
    if not files:
        raise JoyImageError('give a picture and an instruction, such as: joyimage edit photo.jpg "Remove the cup."')
    pictures: list = list(files)
    if wanted:
        instructions, pictures = _spatial(options, wanted[0], pictures)
    names = [Path(file).name for file in files]
    if options.each:
        return [[picture] for picture in pictures], instructions, [[name] for name in names]
    return pictures, instructions, [names]


def _spatial(options, kind: str, pictures: list) -> tuple[list[str], list]:
    if kind == "move":
        if options.box is None or len(pictures) != 1:
            raise JoyImageError("--move takes one picture and --box LEFT,TOP,RIGHT,BOTTOM in its pixels")
        from .images import load

        return [spatial.move_object(options.move)], [spatial.draw_box(load(pictures[0]), options.box)]
    if kind == "rotate":
        return [spatial.rotate_object(options.rotate, options.view or "")], pictures
    parts = [part.strip() for part in options.camera.split(",")]
    if len(parts) > 3:
        raise JoyImageError(f"--camera takes YAW,PITCH,ZOOM, not {options.camera!r}")
    yaw, pitch, zoom = parts + ["0", "0", "unchanged"][len(parts) :]
    return [spatial.camera(_number(yaw), _number(pitch), zoom)], pictures


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise JoyImageError(f"{text!r} is not a number of degrees") from None


def _checked(options) -> dict:
    """What goes to the library under the same names, checked before any weights are opened."""
    parameters = {name: getattr(options, name) for name in SAMPLING}
    Sampling.of({name: value for name, value in parameters.items() if name in Sampling.names()})
    check_seed(options.seed)
    check_output("pil", options.count)
    check_base_size(options.base_size)
    for path, _ in options.lora:
        if not Path(path).is_file():
            raise MissingFileError(f"there is no LoRA file {path}")
    if options.size is not None:
        from .images import check_size

        check_size(options.size)
    return parameters


def _loaded(pictures: list) -> list:
    """Pictures, or lists of them, read from their files."""
    from .images import load

    return [_loaded(one) if isinstance(one, list) else load(one) for one in pictures]


def _model_name(options) -> str | None:
    """The model folder to load; parts given one by one need none."""
    given = options.model or os.environ.get("JOYIMAGE_MODEL")
    return given if given or (options.mmdit and options.vae and options.encoder) else "tiny"


def _load(options):
    import torch  # after the options are checked: it takes a second, and --help should not

    from .pipeline import JoyImage
    from .precision import WHOLE

    name = _model_name(options)
    if name == "tiny":
        print(
            "joyimage: note: using the bundled tiny model; --model or $JOYIMAGE_MODEL names another. "
            "The published weights come with: joyimage download edit",
            file=sys.stderr,
        )
    model = JoyImage.load(
        name,
        mmdit=options.mmdit,
        vae=options.vae,
        encoder=options.encoder,
        tokenizer=options.tokenizer,
        device=options.device,
        dtype=getattr(torch, options.dtype) if options.dtype else None,
        memory=options.memory,
    )
    if options.lora:
        model.set_loras(*options.lora)
    _use_threads(options.threads or (1 if model.memory.needs.weights < WHOLE else None))
    return model


def _use_threads(count: int | None) -> None:
    """Let torch work with so many; None leaves it to torch. In small networks threads mostly wait for each other."""
    import torch

    if count is not None:
        torch.set_num_threads(count)


def _save(
    options,
    results: list,
    paths: list[Path],
    prompts: list[str],
    images: list[list[str]],
    parameters: dict,
    seconds: float,
) -> None:
    """Write the pictures with their parameters inside, and say where they are."""
    from .images import save_png

    pictures = []
    for i, (picture, path) in enumerate(zip(results, paths, strict=True)):
        edit, k = divmod(i, options.count)
        details = {
            **parameters,
            "prompt": prompts[edit % len(prompts)],
            "images": images[edit % len(images)],
            "seed": options.seed + k,
            "size": [picture.height, picture.width],
            "model": _model_name(options) or str(options.mmdit),
            "version": __version__,
            **({"loras": [[path, strength] for path, strength in options.lora]} if options.lora else {}),
        }
        del details["count"]
        save_png(picture, path, details)
        pictures.append({"path": str(path), **details})
        if not options.json:
            print(path)
    if options.json:
        print(json.dumps({"pictures": pictures, "seconds": round(seconds, 3)}, indent=2))


def _output_paths(output: Path | None, stem: str, count: int) -> list[Path]:
    """Where the pictures will go, settled before the model runs.

    A file named on the command line is replaced, one named by us never is. Folders are made.
    """
    if output is not None and output.suffix and output.suffix.lower() != ".png" and not output.is_dir():
        raise JoyImageError(f"pictures are saved as PNG; name {output.with_suffix('.png')} or a folder")
    if output is not None and output.suffix and not output.is_dir():
        _make_folder(output.parent)
        return [output] if count == 1 else [output.with_stem(f"{output.stem}-{i + 1}") for i in range(count)]
    folder = output or Path()
    _make_folder(folder)
    names = (f"{stem}.png" if n == 1 else f"{stem}-{n}.png" for n in itertools.count(1))
    return list(itertools.islice((folder / name for name in names if not (folder / name).exists()), count))


def _make_folder(folder: Path) -> None:
    """Raise `JoyImageError` if nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise JoyImageError(f"nothing can be written into {folder}: {reason}; name another with --output") from None


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, such as 1024x768")
    return int(height), int(width)


def _threads(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of threads, such as 4")
    return int(text)


def _base_size(text: str) -> int | str:
    if text != "auto" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither auto nor a number of pixels, such as 512")
    return text if text == "auto" else int(text)


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


def _box(text: str) -> tuple[float, ...]:
    values = _floats(text)
    if len(values) != 4 or not all(map(math.isfinite, values)):
        raise argparse.ArgumentTypeError(f"{text!r} is not LEFT,TOP,RIGHT,BOTTOM in pixels")
    return tuple(values)


if __name__ == "__main__":
    sys.exit(main())
