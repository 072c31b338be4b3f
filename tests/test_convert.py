"""`convert`: what it writes loads, here and elsewhere; layouts go there and back to the byte; memory stays small."""

from __future__ import annotations

import filecmp
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_qwen
import torch
from quantised_files import fp8_squares, fp8_unmarked, fp8_without_note
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from joyimage import tiny
from joyimage.checkpoints import base_size, convert, find_parts, inspect, load_encoder, load_mmdit, load_vae
from joyimage.checkpoints.folders import BASE_SIZE_KEY
from joyimage.checkpoints.write import Entry, Writer
from joyimage.cli import main
from joyimage.config import MMDiTConfig
from joyimage.errors import CheckpointError, JoyImageError
from joyimage.mmdit import MMDiT

# relative error of the velocity
BOUNDS = {
    "fp32": 0.0,
    "bf16": 0.0,
    "fp8": 3e-2,
    "int8": 3e-2,
    "gguf:Q8_0": 1e-2,
    "gguf:Q6_K": 2e-2,
    "gguf:Q5_K": 4e-2,
    "gguf:Q4_K": 1e-1,
    "gguf:Q3_K": 2e-1,
    "gguf:Q2_K": 4e-1,
    "gguf:Q4_0": 1e-1,
    "gguf:BF16": 0.0,
}
PREFIX = "model.diffusion_model."
DIFFUSERS_CLASSES = {"transformer": "JoyImageEditTransformer3DModel", "vae": "AutoencoderKLWan"}


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def mmdit() -> MMDiT:
    """Weights that bf16 holds exactly, in rows of a K type's super-blocks; gates that let every block through."""
    torch.manual_seed(0)
    model = MMDiT(MMDiTConfig(256, 2, 2, 16, 16, 24, 512, (1, 2, 2), (16, 56, 56)))
    for name, parameter in model.named_parameters():
        if name.endswith("modulate_table"):
            nn.init.normal_(parameter, std=0.5)
        parameter.data = parameter.data.bfloat16().float()
    return model.eval().requires_grad_(False)


def velocity(model: MMDiT) -> Tensor:
    context = draw(1, 5, 24, seed=2)
    return model(draw(1, 16, 1, 4, 6), torch.tensor([731.25]), context, [draw(1, 16, 1, 4, 4, seed=3)])


def save(path: Path, state: dict[str, Tensor], metadata=None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path, metadata)
    return path


@pytest.fixture(scope="module")
def bf16_file(mmdit, tmp_path_factory) -> Path:
    state = {name: tensor.bfloat16() for name, tensor in mmdit.state_dict().items()}
    return save(tmp_path_factory.mktemp("mmdit") / "mmdit.safetensors", state)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> Path:
    """The bundled model as single files, with an encoder whose sizes shapes do not tell."""
    mmdit, vae, _ = tiny.build()
    folder = tmp_path_factory.mktemp("model")
    save(folder / "diffusion_models" / "mmdit.safetensors", mmdit.state_dict(), {"format": "pt"})
    save(folder / "vae" / "vae.safetensors", wan_state(vae))
    tokens = tiny_qwen.tokenizer()
    tiny_qwen.model(tokens).save_pretrained(folder / "encoder")
    tokens.save_pretrained(folder / "encoder")
    return folder


def wan_state(vae) -> dict[str, Tensor]:
    """A VAE's weights as published: kernels of three dimensions, and the layers that a single image never reaches."""
    state = {}
    for name, tensor in vae.state_dict().items():
        spatial = tensor.ndim == 4 and ".resample." not in name and not name.endswith(("to_qkv.weight", "proj.weight"))
        state[name] = tensor.unsqueeze(2) if spatial else tensor
    return state


# --- formats ---


@pytest.mark.parametrize("form", BOUNDS)
def test_every_format_loads_and_keeps_the_velocity(mmdit, bf16_file, tmp_path, form):
    output = tmp_path / f"out.{'gguf' if form.startswith('gguf') else 'safetensors'}"
    (written,) = convert(bf16_file, output, format=form)
    loaded, wanted = velocity(load_mmdit(output, dtype=torch.float32)), velocity(mmdit)
    error = ((loaded - wanted).norm() / wanted.norm()).item()
    assert error <= max(BOUNDS[form], 1e-6)
    assert (error > 1e-6) == (BOUNDS[form] > 0)
    assert written.bytes == output.stat().st_size and sum(written.kept.values()) in (0, 42)


def test_sensitive_weights_are_the_same_bytes_and_the_report_says_why(bf16_file, tmp_path):
    (written,) = convert(bf16_file, tmp_path / "out.safetensors", format="fp8")
    before, after = load_file(bf16_file), load_file(tmp_path / "out.safetensors")
    kept = [name for name, tensor in after.items() if tensor.dtype == torch.bfloat16]
    assert all(torch.equal(before[name], after[name]) for name in kept)
    assert {"proj_out.weight", "img_in.weight", "condition_embedder.time_proj.weight"} <= set(kept)
    assert written.formats == {"BF16": len(kept), "F8_E4M3": 16, "F32": 16}
    assert "2 kept: the last layer" in str(written)


def test_a_quantised_file_stays_so_without_a_format_and_turns_back_with_one(bf16_file, tmp_path):
    quantised, again, dense = (tmp_path / name for name in ("q.safetensors", "again.safetensors", "dense.safetensors"))
    convert(bf16_file, quantised, format="int8")
    convert(quantised, again)
    assert filecmp.cmp(quantised, again, shallow=False)
    convert(quantised, dense, format="bf16")
    a, b = (velocity(load_mmdit(path, dtype=torch.float32)) for path in (quantised, dense))
    assert (a - b).norm() / a.norm() < 4e-3  # rounding to bf16


def test_a_gguf_file_becomes_a_gguf_file_and_the_same(bf16_file, tmp_path):
    convert(bf16_file, tmp_path / "q.gguf", format="gguf:Q4_K")
    convert(tmp_path / "q.gguf", tmp_path / "again.gguf")
    assert filecmp.cmp(tmp_path / "q.gguf", tmp_path / "again.gguf", shallow=False)


def test_gguf_files_are_what_the_gguf_package_reads(bf16_file, tmp_path):
    gguf = pytest.importorskip("gguf")
    convert(bf16_file, tmp_path / "out.gguf", format="gguf:Q5_K")
    reader = gguf.GGUFReader(tmp_path / "out.gguf")
    state = load_file(bf16_file)
    assert {tensor.name for tensor in reader.tensors} == state.keys()
    for tensor in reader.tensors:
        assert tuple(tensor.shape[::-1]) == tuple(state[tensor.name].shape)
        if tensor.tensor_type == gguf.GGMLQuantizationType.Q5_K:
            values = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type))
            assert (values - state[tensor.name]).norm() / state[tensor.name].float().norm() < 0.04


@pytest.mark.parametrize("write", [fp8_squares, fp8_unmarked, fp8_without_note], ids=lambda write: write.__name__)
def test_scales_of_every_maker_stay_what_they_are(mmdit, tmp_path, write):
    blocks = {name for name, value in mmdit.state_dict().items() if "double_blocks" in name and value.ndim == 2}
    path = write(tmp_path / "a.safetensors", mmdit.state_dict(), blocks)
    convert(path, tmp_path / "b.safetensors")
    first, second = (load_mmdit(tmp_path / f"{name}.safetensors", dtype=torch.float32) for name in "ab")
    for name in blocks:
        layers = (network.get_submodule(name.removesuffix(".weight")) for network in (first, second))
        one, other = (layer.packed.dense(torch.float32) for layer in layers)
        assert torch.equal(one, other)


# --- layouts ---


def test_layouts_go_there_and_back_to_the_byte(model_folder, tmp_path):
    convert(model_folder, tmp_path / "diffusers", layout="diffusers")
    convert(tmp_path / "diffusers", tmp_path / "comfy")
    convert(tmp_path / "comfy", tmp_path / "diffusers2", layout="diffusers")
    pairs = [
        (model_folder / "diffusion_models/mmdit.safetensors", "comfy/diffusion_models/joyimage_mmdit.safetensors"),
        (model_folder / "vae/vae.safetensors", "comfy/vae/joyimage_vae.safetensors"),
    ]
    diffusers = [file for file in (tmp_path / "diffusers").rglob("*.*") if file.is_file()]
    pairs += [(file, Path("diffusers2") / file.relative_to(tmp_path / "diffusers")) for file in diffusers]
    assert len(diffusers) >= 8
    for before, after in pairs:
        assert filecmp.cmp(before, tmp_path / after, shallow=False), after
    encoder = load_file(tmp_path / "comfy/text_encoders/joyimage_encoder.safetensors")
    original = load_file(model_folder / "encoder/model.safetensors")
    assert encoder.keys() == original.keys() and all(torch.equal(encoder[name], original[name]) for name in encoder)


@pytest.mark.parametrize("naming", ["original .pth", "prefix", "shards"])
def test_every_naming_becomes_the_same_file(bf16_file, tmp_path, naming):
    state = load_file(bf16_file)
    if naming == "original .pth":
        source = tmp_path / "transformer.pth"
        torch.save({name.replace(".attn.", "."): tensor for name, tensor in state.items()}, source)
    elif naming == "prefix":
        source = save(tmp_path / "prefixed.safetensors", {PREFIX + name: tensor for name, tensor in state.items()})
    else:
        source = tmp_path / "sharded"
        halves = {"a.safetensors": list(state)[::2], "b.safetensors": list(state)[1::2]}
        for file, names in halves.items():
            save(source / file, {name: state[name] for name in names})
        weight_map = {name: file for file, names in halves.items() for name in names}
        (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    convert(source, tmp_path / "out.safetensors")
    assert filecmp.cmp(tmp_path / "out.safetensors", bf16_file, shallow=False)


@pytest.mark.parametrize("layout", ["comfy", "diffusers"])
@pytest.mark.slow
def test_a_converted_folder_is_a_whole_model(model_folder, tmp_path, layout):
    convert(model_folder, tmp_path / "out", format="int8", layout=layout)
    parts = find_parts(tmp_path / "out")
    assert set(parts) == {"mmdit", "vae", "encoder", "tokenizer"}
    assert "Complete" in inspect(tmp_path / "out").advice
    load_mmdit(parts["mmdit"])
    load_vae(parts["vae"])
    encoder = load_encoder(parts["encoder"], parts["tokenizer"], dtype=torch.float32)
    before = load_encoder(model_folder / "encoder", dtype=torch.float32)
    a, b = (one.encode(["make the hat red"])[0] for one in (encoder, before))
    assert (a - b).norm() / b.norm() < 3e-2


def test_a_folder_named_like_a_tokenizers_file_is_passed_over(model_folder, tmp_path):
    folder = Path(shutil.copytree(model_folder, tmp_path / "in"))
    tokenizer = find_parts(folder)["tokenizer"]
    (tokenizer / "added.json").mkdir()
    convert(folder, tmp_path / "out")
    assert (tmp_path / "out" / "tokenizer" / "tokenizer.json").is_file()


def test_diffusers_and_transformers_load_what_is_written_for_them(model_folder, tmp_path):
    try:
        import diffusers
        from transformers import Qwen3VLForConditionalGeneration
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"Diffusers: {error}")
    convert(model_folder, tmp_path / "out", layout="diffusers")
    transformer = diffusers.JoyImageEditTransformer3DModel.from_pretrained(tmp_path / "out", subfolder="transformer")
    state = load_file(model_folder / "diffusion_models/mmdit.safetensors")
    assert all(torch.equal(transformer.state_dict()[name], tensor) for name, tensor in state.items())
    assert transformer.config.theta == 10000 and tuple(transformer.config.rope_dim_list) == (4, 14, 14)
    qwen = Qwen3VLForConditionalGeneration.from_pretrained(tmp_path / "out" / "text_encoder")
    original = load_file(model_folder / "encoder/model.safetensors")
    assert all(torch.equal(qwen.state_dict()[name], tensor) for name, tensor in original.items())


def test_diffusers_loads_a_vae_in_its_naming(tmp_path):
    try:
        import diffusers
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"Diffusers: {error}")
    torch.manual_seed(0)
    saved = diffusers.AutoencoderKLWan(base_dim=8, num_res_blocks=1)
    saved.save_pretrained(tmp_path / "theirs")
    convert(tmp_path / "theirs", tmp_path / "wan.safetensors")
    convert(tmp_path / "wan.safetensors", tmp_path / "out", layout="diffusers")
    loaded = diffusers.AutoencoderKLWan.from_pretrained(tmp_path / "out", subfolder="vae")
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in saved.state_dict().items())


def test_what_shapes_do_not_tell_travels_in_the_header(mmdit, tmp_path):
    folder = tmp_path / "theirs"
    save(folder / "weights.safetensors", mmdit.state_dict())
    config = {"_class_name": "JoyImageEditTransformer3DModel", "rope_dim_list": [32, 48, 48], "theta": 500}
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("out.safetensors", "out.gguf"):
        form = "gguf:F32" if name.endswith("gguf") else None
        convert(folder, tmp_path / name, format=form)
        loaded = load_mmdit(tmp_path / name).config
        assert (loaded.rope_dims, loaded.theta) == ((32, 48, 48), 500)


@pytest.mark.parametrize("form", [None, "fp8", "gguf:Q8_0"])
def test_the_base_size_travels_in_the_header(mmdit, bf16_file, tmp_path, form):
    marked = save(tmp_path / "marked.safetensors", mmdit.state_dict(), {BASE_SIZE_KEY: "64"})
    output = tmp_path / f"out.{'gguf' if form == 'gguf:Q8_0' else 'safetensors'}"
    convert(marked, output, format=form)
    assert (base_size(output, "mmdit"), base_size(bf16_file, "mmdit")) == (64, 1024)


def test_a_base_size_that_is_none_is_named(mmdit, tmp_path):
    marked = save(tmp_path / "marked.safetensors", mmdit.state_dict(), {BASE_SIZE_KEY: "big"})
    with pytest.raises(CheckpointError, match=r"marked\.safetensors: .* is 'big', which is not one of 64, 256"):
        base_size(marked, "mmdit")


# --- safety ---


def test_an_interrupted_run_leaves_the_old_file_and_nothing_else(bf16_file, tmp_path, monkeypatch):
    output = tmp_path / "out.safetensors"
    output.write_bytes(b"old")
    write, count = Writer.write, iter(range(100))

    def interrupted(self, name, tensor):
        if next(count) == 20:
            raise KeyboardInterrupt
        write(self, name, tensor)

    monkeypatch.setattr(Writer, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(bf16_file, output, format="fp8")
    assert [file.name for file in tmp_path.iterdir()] == ["out.safetensors"]
    assert output.read_bytes() == b"old"


def test_a_byte_that_changes_on_the_disk_is_found(tmp_path):
    entries = [Entry("a", "F32", (4,), 16), Entry("b", "F32", (2, 2), 16)]
    with (
        pytest.raises(CheckpointError, match=r"out\.safetensors: b reads back otherwise"),
        Writer(tmp_path / "out.safetensors", entries, {}, "safetensors") as writer,
    ):
        for entry in entries:
            writer.write(entry.name, torch.ones(entry.shape))
        writer.file.flush()
        with writer.partial.open("r+b") as file:
            file.seek(-1, 2)
            file.write(b"\xff")
        with tqdm(disable=True) as bar:
            writer.finish(bar)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("{file}", "{out}/a.gguf", "--format", "fp8"), "is a safetensors file; name it .safetensors"),
        (("{file}", "{out}/a.bin"), "is a safetensors file; name it .safetensors"),
        (("{file}", "{file}"), "is what to convert; give another name"),
        (("{file}", "{out}/a.safetensors", "--format", "q4"), "unknown format 'q4'; choose one of"),
        (("{file}", "{out}/a.safetensors", "--layout", "flat"), "unknown layout 'flat'; choose one of comfy, diff"),
        (("{model}", "{out}/a.safetensors"), "holds .*; give a folder for the output"),
        (("{other}", "{out}/a.safetensors"), "holds no weights of JoyImage"),
        (("{partial}", "{out}/a.safetensors"), "would not load: 1 missing: proj_out.bias"),
        (("{integers}", "{out}/a.safetensors"), "would not load: proj_out.weight is int8 without scale"),
        (("{vae}", "{out}/a.gguf", "--format", "gguf:Q8_0"), "a VAE is not quantised"),
        (("{out}/none", "{out}/a.safetensors"), "no such file or folder"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(bf16_file, model_folder, tmp_path, capsys, arguments, message):
    state = load_file(bf16_file)
    places = {
        "file": bf16_file,
        "out": tmp_path / "out",
        "model": model_folder,
        "vae": model_folder / "vae" / "vae.safetensors",
        "other": save(tmp_path / "other.safetensors", {"a.weight": torch.ones(2)}),
        "integers": save(
            tmp_path / "integers.safetensors", state | {"proj_out.weight": state["proj_out.weight"].char()}
        ),
        "partial": save(tmp_path / "partial.safetensors", {k: v for k, v in state.items() if k != "proj_out.bias"}),
    }
    assert main(["convert", "--quiet", *(argument.format(**places) for argument in arguments)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search(message, error)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_noticed_before_writing(tmp_path):
    entries = [Entry("a", "F32", (2**50,), 2**52)]
    with (
        pytest.raises(JoyImageError, match="its disk has"),
        Writer(tmp_path / "a.safetensors", entries, {}, "safetensors"),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_that_does_not_fit_is_refused_before_its_first_file(model_folder, tmp_path, monkeypatch):
    """Each of its three files would fit on its own."""
    sizes = [file.stat().st_size for file in model_folder.rglob("*.safetensors")]
    usage = type(shutil.disk_usage(tmp_path))(2**40, 0, max(sizes) + 2**21)
    assert sum(sizes) > usage.free
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(JoyImageError, match=r"out: would take [\d,]+ bytes, its disk has [\d,]+ left"):
        convert(model_folder, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_header_that_cannot_be_written_leaves_nothing(tmp_path):
    writer = Writer(tmp_path / "a.gguf", [Entry("a", "no type", (2,), 8)], {"general.architecture": "wan"}, "gguf")
    with pytest.raises(KeyError), writer:
        pass
    assert not list(tmp_path.iterdir())


def test_the_command_reports_what_it_wrote(bf16_file, tmp_path, capsys):
    assert (
        main(["convert", str(bf16_file), str(tmp_path / "a.safetensors"), "--format", "int8", "--json", "--quiet"]) == 0
    )
    (report,) = json.loads(capsys.readouterr().out)
    assert report["part"] == "mmdit" and report["formats"]["I8"] == 16
    assert main(["convert", str(bf16_file), str(tmp_path / "b.gguf"), "--format", "gguf:q4_k", "--quiet"]) == 0
    assert "16 Q4_K" in capsys.readouterr().out


# --- memory ---


def sparse_mmdit(path: Path, blocks: int) -> int:
    """An MMDiT of the published width full of zeros, which takes no room on the disk; returns its bytes."""
    with torch.device("meta"):
        network = MMDiT(MMDiTConfig(num_layers=blocks))
    header, end = {}, 0
    for name, parameter in network.named_parameters():
        begin, end = end, end + 2 * parameter.numel()
        header[name] = {"dtype": "BF16", "shape": list(parameter.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return end


# The kernel's own record: `ru_maxrss` of a child begins at what its parent had.
PEAK = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from joyimage.checkpoints import convert
def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
before = peak()  # a torch for CUDA takes up to 600 MB by itself
convert(sys.argv[1], sys.argv[2], format="fp8")
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
@pytest.mark.slow
def test_two_gigabytes_pass_through_350_megabytes(tmp_path):
    size = sparse_mmdit(tmp_path / "in.safetensors", blocks=3)
    assert size > 2 * 2**30
    command = [sys.executable, "-c", PEAK, str(tmp_path / "in.safetensors"), str(tmp_path / "out.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 350 * 2**20
