"""What loads, in library and command line: every layout in every format, with the forward of what the file holds."""

from __future__ import annotations

import atexit
import json
import re
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from loadable import COMPONENTS, FORMATS, LAYOUTS, PLACES, chosen, error, fits, network, state_of, write
from refused import REFUSED
from torch import Tensor, nn

from joyimage.checkpoints import load_encoder, load_mmdit, load_vae
from joyimage.cli import main
from joyimage.errors import CheckpointError
from joyimage.quantisation import layers

PAGE = Path(__file__).parents[1] / "docs" / "weights.md"
LOAD: dict[str, Callable] = {"mmdit": load_mmdit, "vae": load_vae, "encoder": load_encoder}
TYPICAL = ("bf16", "fp8, weight_scale", "int8, rows", "Q8_0")


def is_cell(component: str, layout: str, form: str) -> bool:
    """Whether a layout is tested in a format: in all, but for encoders, which take transformers to build, and GGUF in
    typical ones, and wrappers in one."""
    if layout not in PLACES:
        return form == "fp8, weight_scale"
    return form in TYPICAL or (component != "encoder" and not FORMATS[form].gguf)


CELLS = [
    (component, layout, form)
    for component in COMPONENTS
    for layout in LAYOUTS
    for form in FORMATS
    if fits(layout, form) and is_cell(component, layout, form)
]


def first_layout(form: str) -> str:
    return next(layout for layout in LAYOUTS if fits(layout, form))


@cache
def made(component: str):
    """The network, its weights and what it computes of the fixed inputs."""
    whole = COMPONENTS[component].make()
    return whole, state_of(component, whole), COMPONENTS[component].forward(whole)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A folder for files that several tests share."""
    return tmp_path_factory.mktemp("files")


@cache
def tokens() -> Path:
    """A folder with the encoder's tokenizer."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    made("encoder")[0].tokenizer.save_pretrained(folder)
    return folder


def load(component: str, path: Path):
    """A component from a file or folder, computing in float32."""
    more = {"tokenizer": tokens()} if component == "encoder" else {}
    return LOAD[component](path, dtype=torch.float32, **more)


def unpacked(model: nn.Module) -> dict[str, Tensor]:
    """A network's weights as floating point."""
    state = dict(model.state_dict())
    for path, layer in model.named_modules():
        if isinstance(layer, layers.Quantisable) and layer.packed:
            for name in [name for name, _ in layer.named_buffers()]:
                del state[f"{path}.{name}"]
            state[f"{path}.weight"] = layer.packed.dense(torch.float32)
    return state


def kept(model: nn.Module) -> int:
    return sum(isinstance(m, layers.Quantisable) and m.packed is not None for m in model.modules())


@cache
def first_written(component: str, form: str, folder: Path) -> Path:
    """A component in a format, in the first layout that has it."""
    place = folder / f"{component} {form}"
    place.mkdir(exist_ok=True)  # it is there already where the test before was skipped
    return write(component, made(component)[1], form, first_layout(form), place)


@cache
def measured(component: str, form: str, folder: Path) -> float:
    """The error of a forward in a format against bf16."""
    return error(
        COMPONENTS[component].forward(load(component, first_written(component, form, folder))), made(component)[2]
    )


@cache
def reference(component: str, form: str, folder: Path) -> dict[str, Tensor]:
    return unpacked(network(load(component, first_written(component, form, folder))))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("component", COMPONENTS)
def test_formats_load_and_compute_what_the_file_says(component, form, files):
    """Within the format's bound against bf16, and as the same network with its weights made floating point."""
    assert measured(component, form, files) <= FORMATS[form].bound
    loaded = load(component, first_written(component, form, files))
    if component != "vae" and FORMATS[form].quantised:
        matrices = chosen(component, made(component)[1])
        assert kept(network(loaded)) >= 0.6 * len(matrices)  # rows of the vision tower may be too short
    found = COMPONENTS[component].forward(loaded)
    for layer in [m for m in network(loaded).modules() if isinstance(m, layers.Quantisable) and m.packed]:
        layer.weight = nn.Parameter(layer.packed.dense(torch.float32), requires_grad=False)
    assert error(found, COMPONENTS[component].forward(loaded)) <= 1e-5


@pytest.mark.parametrize(("component", "layout", "form"), CELLS)
def test_layouts_give_the_same_weights(component, layout, form, files, tmp_path, capsys):
    """As the first layout, to the bit; and `inspect` finds nothing wrong."""
    path = write(component, made(component)[1], form, layout, tmp_path)
    found = unpacked(network(load(component, path)))
    expected = reference(component, form, files)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert main(["inspect", "--json", str(path)]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    (part,) = report["parts"]
    assert (part["part"], part["problem"]) == (component, "")


CONVERTED = [("mmdit", form) for form in FORMATS] + [("vae", form) for form in TYPICAL]


@pytest.mark.parametrize(("component", "form"), CONVERTED)
def test_convert_writes_what_the_file_says(component, form, files, tmp_path):
    out = tmp_path / "converted.safetensors"
    assert main(["convert", str(first_written(component, form, files)), str(out), "--format", "fp32", "--quiet"]) == 0
    found = unpacked(network(load(component, out)))
    assert all(torch.equal(found[name], tensor) for name, tensor in reference(component, form, files).items())


def test_float64_computes_in_float32(files):
    loaded = load_mmdit(first_written("mmdit", "fp64", files))
    assert error(COMPONENTS["mmdit"].forward(loaded), made("mmdit")[2]) <= 1e-6


@pytest.mark.parametrize("name", REFUSED)
def test_the_rest_is_refused_in_one_line(name, files, tmp_path, capsys):
    """By the library, and by the command line with exit code 2."""
    row = REFUSED[name]
    path = row.write(tmp_path)
    with pytest.raises(CheckpointError, match=row.message) as caught:
        LOAD[row.component](path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    whole = {component: first_written(component, "bf16", files) for component in COMPONENTS}
    given = [word for part, file in (whole | {row.component: path}).items() for word in (f"--{part}", str(file))]
    assert main(["generate", "A cube.", *given, "--tokenizer", str(tokens()), "--device", "cpu"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and re.search(row.message, lines[0])


# --- the page --------------------------------------------------------------------------------------------------------


def table(heading: str) -> list[list[str]]:
    """The cells of the table in a section of docs/weights.md, without its head."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n### {heading}\n")[1].split("\n#")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_page_lists_the_tested_formats_with_their_bounds():
    listed = {row[0]: float(row[1]) if row[1] != "exact" else None for row in table("Formats")}
    tested = {form.row: form.bound for form in FORMATS.values() if form.row}
    assert listed.keys() == tested.keys()
    assert all(bound in (None, tested[name]) for name, bound in listed.items())


def test_the_pages_figures_are_those_measured(files):
    """Of the worst format of a row, rounded."""
    for label, _, *figures in table("Formats"):
        for component, figure in zip(COMPONENTS, figures, strict=True):
            forms = [name for name, form in FORMATS.items() if form.row == label]
            worst = max(measured(component, form, files) for form in forms)
            if re.fullmatch(r"[\d.]+e-\d+", figure):
                assert float(figure) == pytest.approx(worst, rel=0.1), (label, component)
            else:
                assert worst <= 1e-3, (label, component)


def test_the_page_lists_the_tested_layouts():
    assert [row[0] for row in table("Layouts")] == PLACES


def test_the_page_names_all_that_is_refused():
    (names,) = re.findall(r"\*\*Not read\*\*[^:]*: (.+?)\n\n", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    text = " ".join(names.split())
    assert not [name for name in REFUSED if name not in text]
