"""Blocks that stream: the same results, within the budget, copied while the block before runs."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch
from live_memory import LiveMemory
from PIL import Image
from quantised_files import fp8_scale_weight
from safetensors.torch import save_file
from torch import nn

from joyimage import JoyImage, JoyImageError, tiny
from joyimage.checkpoints import load_encoder, load_mmdit, load_vae
from joyimage.checkpoints.folders import open_component
from joyimage.checkpoints.outlines import outline
from joyimage.cli import main
from joyimage.config import MMDiTConfig
from joyimage.memory import budget as budgets
from joyimage.memory.budget import Needs, place
from joyimage.memory.offload import Memory, with_tiles
from joyimage.memory.streaming import Pinned, Streamer, Worker, pinned_for
from joyimage.mmdit import MMDiT
from joyimage.planning import plan, plan_model
from joyimage.quantisation import layers
from joyimage.quantisation.formats import FORMATS, Scale
from joyimage.quantisation.tensor import QuantizedTensor
from tools.photograph import photograph

CPU = torch.device("cpu")
BLOCKS = 8


def draw(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(packed: bool = False) -> MMDiT:
    """Eight blocks that all count; `packed` ones hold fp8 bytes, and scales in buffers."""
    model = MMDiT(
        MMDiTConfig(hidden_size=32, num_heads=2, num_layers=BLOCKS, text_dim=32, mlp_size=64, rope_dims=(4, 6, 6)),
        operations=layers,
    )
    for i, parameter in enumerate(model.parameters()):
        parameter.data = 0.3 * draw(*parameter.shape, seed=i)
    for layer in model.double_blocks.modules() if packed else ():
        if isinstance(layer, layers.Linear):
            data = layer.weight.data.to(torch.float8_e4m3fn).view(torch.uint8)
            scale = torch.full((len(data), 1), 0.9)
            form = replace(FORMATS["float8_e4m3fn"], scales=(Scale(rows=1),))
            layer.pack(QuantizedTensor(data, (scale,), form, layer.weight.shape))
    return model.eval().requires_grad_(False)


@torch.inference_mode()
def velocity(model: MMDiT) -> torch.Tensor:
    return model(draw(1, 16, 1, 8, 8), torch.tensor([731.25]), draw(1, 5, 32, seed=2), [draw(1, 16, 1, 4, 8, seed=3)])


def worker(model: MMDiT, pinned: Pinned | None = None) -> Worker:
    return Worker(model, [list(model.double_blocks)], CPU, pinned or Pinned(0))


def placement(model: MMDiT, blocks: int) -> budgets.Placement:
    """Of a budget that holds so many blocks."""
    part = budgets.measure("mmdit", model, {"blocks": model.double_blocks})
    return place(part, 0, part.rest + blocks * max(part.groups[0].blocks))


def storages(tensors) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for tensor in tensors}


# -- the same results -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True], ids=["float32", "fp8"])
@pytest.mark.parametrize("held", [2, 3, 5, 8])
def test_a_streamed_run_equals_the_resident_one(held, packed):
    model = network(packed)
    expected, home = velocity(model), {name: tensor for name, tensor in model.state_dict(keep_vars=True).items()}
    part = worker(model)
    part.enter(placement(model, held))
    assert all(torch.equal(velocity(model), expected) for _ in range(2))
    part.leave()
    assert all(model.state_dict(keep_vars=True)[name] is tensor for name, tensor in home.items())
    assert torch.equal(velocity(model), expected)


@pytest.mark.parametrize("held", [2, 4, 8])
def test_what_is_on_the_device_stays_within_the_budget(held):
    model = network()
    placed, activations = placement(model, held), 0
    with LiveMemory(model.parameters()) as live, torch.inference_mode():
        velocity(model)
        activations, live.peak = live.peak, 0
        part = worker(model)
        part.enter(placed)
        velocity(model)
        part.leave()
    assert 0.9 * placed.held < live.peak <= placed.held + activations
    assert live.now < 0.1 * placed.held  # and nothing is left there


def test_two_slots_hold_all_blocks_that_stream():
    model, seen = network(), []
    for block in model.double_blocks:
        block.attn.register_forward_pre_hook(lambda attention, _: seen.append(storages(attention.parameters())))
    home = storages(model.parameters())
    part = worker(model)
    part.enter(placement(model, 2))
    velocity(model)
    assert len(seen) == BLOCKS and all(len(used) == 1 for used in seen)
    assert len(set.union(*seen)) == 2 and not set.union(*seen) & home
    part.leave()


def test_blocks_that_run_out_of_order_or_not_at_all_are_right():
    model = network()
    part = worker(model)
    blocks = list(model.double_blocks)
    img, txt, time, layout = model.embed(draw(1, 16, 1, 8, 8), torch.tensor([5.0]), draw(1, 5, 32), (), model.attention)

    def run():
        return [blocks[i](img, txt, time, layout)[0] for i in (0, 1, 5, 5, 2, 7, 0)]

    expected = run()
    part.enter(placement(model, 2))
    assert all(torch.equal(a, b) for a, b in zip(run(), expected, strict=True))
    part.leave()


def test_a_failing_block_leaves_the_weights_at_home():
    model = network()
    home = storages(model.parameters())

    def fail(*_):
        raise RuntimeError("stop")

    hook = model.double_blocks[3].attn.register_forward_pre_hook(fail)
    part = worker(model)
    part.enter(placement(model, 3))
    with pytest.raises(RuntimeError, match="stop"):
        velocity(model)
    part.leave()
    hook.remove()
    assert storages(model.parameters()) == home
    velocity(model)


# -- the order of copies ----------------------------------------------------------------------------------------------


class LateQueue:
    """Copies at the last moment that events allow, and notes what happens: the worst case of a second stream."""

    def __init__(self):
        self.log: list[tuple] = []
        self._pending: dict[int, object] = {}

    def mark(self) -> int:
        self.log.append(("mark",))
        return len(self.log)

    def run(self, copy, after: int) -> int:
        self.log.append(("copy", after))
        self._pending[len(self.log)] = copy
        return len(self.log)

    def wait(self, event: int) -> None:
        if event in self._pending:
            self.log.append(("wait", event))
            self._pending.pop(event)()

    def finish(self) -> None:
        self.log.append(("finish",))


def streamed(model: MMDiT, queue) -> Streamer:
    for i, block in enumerate(model.double_blocks):
        block.attn.register_forward_pre_hook(lambda *_, i=i: queue.log.append(("run", i)))
    return Streamer(list(model.double_blocks), CPU, queue, Pinned(0))


def test_copies_may_come_as_late_as_their_events_allow():
    model, queue = network(), LateQueue()
    expected = velocity(model)
    streamer = streamed(model, queue)
    assert all(torch.equal(velocity(model), expected) for _ in range(2))
    streamer.close()


def test_the_next_block_is_copied_while_one_runs_and_never_over_one_that_runs():
    model, queue = network(), LateQueue()
    streamer = streamed(model, queue)
    velocity(model)
    streamer.close()
    log = queue.log
    runs = [log.index(("run", i)) for i in range(BLOCKS)]
    copies = [i for i, entry in enumerate(log) if entry[0] == "copy"]
    marks = [i + 1 for i, entry in enumerate(log) if entry[0] == "mark"]  # two for the slots, then one for each block
    for i in range(BLOCKS):
        assert copies[i + 1] < runs[i]  # the next one (after the last, the first again) is on its way before this runs
        assert log[copies[i]][1] == marks[i]  # into a slot whose block before, two earlier, is done
        assert ("wait", copies[i] + 1) in log[: runs[i]]
    assert len(copies) == BLOCKS + 1 and log[-1] == ("finish",)


# -- pinned memory ----------------------------------------------------------------------------------------------------


def plain(count: int) -> torch.Tensor:
    return torch.empty(count, dtype=torch.uint8)


@pytest.mark.parametrize("packed", [False, True], ids=["float32", "fp8"])
def test_streamed_blocks_move_to_pinned_memory_once(packed):
    model = network(packed)
    expected, first = velocity(model), list(model.double_blocks.parameters())
    pinned = Pinned(2**24, plain, chunk=2**16)
    for _ in range(2):
        part = worker(model, pinned)
        part.enter(placement(model, 2))
        assert torch.equal(velocity(model), expected)
        part.leave()
        assert not storages(model.double_blocks.parameters()) & storages(first)
        weights = budgets.size_of(model.double_blocks.modules())
        assert weights <= pinned.total < weights + 2 * 2**16
    assert torch.equal(velocity(model), expected)


def test_pinned_memory_has_a_limit():
    model = network()
    expected, first = velocity(model), list(model.double_blocks.parameters())
    pinned = Pinned(3 * 2**16, plain, chunk=2**16)
    part = worker(model, pinned)
    part.enter(placement(model, 2))
    assert torch.equal(velocity(model), expected)
    part.leave()
    assert pinned.total == 3 * 2**16
    assert storages(model.double_blocks.parameters()) & storages(first)  # the others stay where they were


def test_half_of_the_main_memory_may_be_pinned_for_a_gpu_and_nothing_for_other_devices():
    assert pinned_for(torch.device("cuda")).limit == pytest.approx(psutil.virtual_memory().total / 2, rel=0.01)
    assert pinned_for(CPU).limit == 0


def test_where_the_main_memory_is_not_known_the_system_says_when_it_is_too_much(monkeypatch):
    monkeypatch.delattr("os.sysconf", raising=False)  # as on Windows
    assert pinned_for(torch.device("cuda")).limit == 2**62


def test_a_system_that_gives_no_pinned_memory_is_asked_once():
    asked = []

    def refuse(count: int) -> torch.Tensor:
        asked.append(count)
        raise RuntimeError("CUDA error: out of memory")

    pinned, tensor = Pinned(2**30, refuse), torch.ones(4)
    assert all(pinned.take(tensor) is tensor for _ in range(3))
    assert len(asked) == 1


# -- whole models -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def picture():
    return photograph().resize((64, 64))


EDIT = {"size": (64, 64), "steps": 2, "output": "latent"}


@pytest.fixture(scope="module")
def expected(picture):
    model = JoyImage.load("tiny", device="cpu")
    return model.edit(picture, "Hat", **EDIT), model.ask(picture, "Hat?", max_new_tokens=3, temperature=0)


@pytest.mark.parametrize("budget", ["12.5MB", "14MB", "200MB"])
def test_a_model_in_little_memory_gives_the_same(picture, expected, budget):
    model = JoyImage.load("tiny", device="cpu", memory=budget)
    assert torch.equal(model.edit(picture, "Hat", **EDIT), expected[0])
    assert model.ask(picture, "Hat?", max_new_tokens=3, temperature=0) == expected[1]
    assert torch.equal(model.edit(picture, "Hat", **EDIT), expected[0])


def test_an_edit_stays_within_its_budget(picture):
    model = JoyImage.load("tiny", device="cpu", memory="12.5MB")
    home = [tensor for part in (model.mmdit, model.vae, model.encoder.model) for tensor in part.state_dict().values()]
    with LiveMemory([*home, *model.encoder.model.buffers()]) as live:
        model.edit(picture, "Hat", **EDIT)
    assert 5e6 < live.peak <= 12.5e6


def test_parts_stay_on_the_device_only_if_all_fit_in_at_once(picture):
    present = {}
    for budget in ("14MB", "200MB"):
        model = JoyImage.load("tiny", device="cpu", memory=budget)
        home = storages(model.mmdit.parameters())
        model.edit(picture, "Hat", **EDIT)
        present[budget] = not storages(model.mmdit.parameters()) & home
        model.memory.leave()
        assert storages(model.mmdit.parameters()) == home
    assert present == {"14MB": False, "200MB": True}


@pytest.mark.parametrize(("budget", "comes"), [("14MB", False), ("200MB", True)])
def test_the_language_head_comes_along_where_all_fits_in_as_answers_will_need_it(budget, comes):
    model = JoyImage.load("tiny", device="cpu", memory=budget)
    home = storages([model.encoder.model.lm_head.weight])
    with model.memory.conditioning(64 * 64, 60):
        assert (storages([model.encoder.model.lm_head.weight]) != home) is comes


@pytest.mark.parametrize("merge", [False, True], ids=["hooked", "merged"])
@pytest.mark.parametrize("budget", ["14MB", "200MB"])
@pytest.mark.slow
def test_loras_come_and_go_as_without_a_budget(picture, tmp_path, budget, merge):
    layer = "diffusion_model.double_blocks.1.attn.img_attn_qkv"
    file = tmp_path / "lora.safetensors"
    save_file({f"{layer}.lora_down.weight": draw(4, 160), f"{layer}.lora_up.weight": draw(480, 4, seed=2)}, file)
    results = []
    for given in (None, budget):
        model = JoyImage.load("tiny", device="cpu", memory=given)
        model.mmdit.double_blocks[1].img_mod.modulate_table.fill_(0.3)  # so that the block counts
        model.edit(picture, "Hat", **EDIT)
        model.set_loras(file, merge=merge)
        with_lora = model.edit(picture, "Hat", **EDIT)
        model.set_loras()
        results.append((with_lora, model.edit(picture, "Hat", **EDIT)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert not torch.equal(*results[1])


def test_a_memory_that_can_not_work_is_refused_with_one_that_can():
    with pytest.raises(JoyImageError, match=r"a memory of 1\.00 MB is too small: the encoder needs at least") as error:
        JoyImage.load("tiny", device="cpu", memory="1MB")
    JoyImage.load("tiny", device="cpu", memory=re.search(r"at least ([\d.]+ MB)", str(error.value))[1])


def test_cuda_itself_takes_half_a_gibibyte_of_a_budget():
    mmdit, vae, encoder = tiny.build("cpu")
    least = {}
    for device in ("cpu", "cuda"):
        with pytest.raises(JoyImageError, match="needs at least") as error:
            Memory(Needs(encoder.model, mmdit, vae), torch.device(device), 2**20)
        least[device] = budgets.parse_size(re.search(r"at least ([\d.]+ [MG]B)", str(error.value))[1])
    assert least["cuda"] - least["cpu"] == pytest.approx(512 * 2**20, abs=1e7)  # it is told in hundredths of a GB


def test_a_size_that_does_not_fit_is_refused_before_anything_moves(picture):
    model = JoyImage.load("tiny", device="cpu", memory="12.5MB")
    with pytest.raises(JoyImageError, match="needs at least"):
        model.generate("Hat", size=(1024, 1024), steps=1)


# -- the VAE's tiles --------------------------------------------------------------------------------------------------


def test_the_vae_takes_smaller_tiles_when_memory_runs_out():
    model = JoyImage.load("tiny", device="cpu")
    latent, tried = draw(1, 16, 1, 40, 40), []
    (whole,) = model.decode([latent])

    def limit(layer: nn.Module, inputs: tuple[torch.Tensor, ...]):
        pixels = 64 * inputs[0].shape[2] * inputs[0].shape[3]
        tried.append(pixels)
        if layer is last and pixels > 64 * 300**2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    last = model.vae.decoder.head[-1]
    last.register_forward_pre_hook(limit)
    (tiled,) = model.decode([latent])
    assert tried[0] == tried[1] == tried[2] == 64 * 320**2 > max(tried[3:])  # whole, 1024, 512, then 256
    torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=0)


def test_running_out_with_the_smallest_tile_is_an_error():
    def run(tile):
        raise torch.cuda.OutOfMemoryError(f"tile {tile}")

    with pytest.raises(torch.cuda.OutOfMemoryError, match="tile 256"):
        with_tiles(run)


def test_the_budget_chooses_the_tile():
    mmdit, vae, encoder = tiny.build("cpu")
    needs = Needs(encoder.model, mmdit, vae)
    room = {tile: needs.part("vae").weights + needs.vae(1408**2, tile) for tile in budgets.TILES}
    assert [needs.tile(1408**2, count) for count in room.values()] == list(budgets.TILES)
    with Memory(needs, CPU, room[1024] + needs.part("encoder").weights).vae(1408**2) as tiled:
        assert tiled(lambda tile: tile) == 1024


# -- plans ------------------------------------------------------------------------------------------------------------


def test_a_plan_of_files_is_that_of_the_loaded_model(tmp_path):
    mmdit, vae, encoder = tiny.build("cpu")
    save(tmp_path, mmdit=mmdit, vae=vae)
    encoder.model.save_pretrained(tmp_path / "encoder")
    encoder.tokenizer.save_pretrained(tmp_path / "encoder")
    paths = {part: tmp_path / part for part in ("mmdit", "vae", "encoder")}
    options = {"size": (128, 96), "references": 2}
    from_headers = plan_model(memory="60MB", device="cpu", **paths, **options)
    loaded = Needs(
        load_encoder(paths["encoder"]).model, load_mmdit(paths["mmdit"]), load_vae(paths["vae"], dtype=torch.float32)
    )
    assert from_headers == plan(loaded, 60_000_000, device="cpu", **options)
    assert from_headers.placements[1].part.weights == budgets.size_of(mmdit.modules())


def save(folder, **networks) -> None:
    for name, part in networks.items():
        (folder / name).mkdir()
        state = {key: value.contiguous() for key, value in part.state_dict().items()}
        save_file(state, folder / name / "weights.safetensors")


def test_a_plan_knows_that_quantised_weights_are_smaller(tmp_path):

    mmdit = tiny.build("cpu")[0]
    state = mmdit.state_dict()
    chosen = [name for name in state if re.search(r"double_blocks.*(qkv|proj|net\.2)\.weight$", name)]
    path = fp8_scale_weight(tmp_path / "fp8.safetensors", state, chosen)
    empty, loaded = outline(open_component(path, "mmdit")), load_mmdit(path, compute_device="cuda")
    parts = [budgets.measure("mmdit", model, {"blocks": model.double_blocks}) for model in (empty, loaded)]
    assert parts[0].weights == pytest.approx(parts[1].weights, rel=0.02)
    assert parts[0].groups[0].blocks[0] < 0.3 * budgets.size_of(mmdit.double_blocks[0].modules())
    assert budgets.unpacking(empty, 2) == budgets.unpacking(loaded, 2) > budgets.unpacking(mmdit, 2) == 0


def test_plan_prints_what_will_be_where(capsys, monkeypatch):
    monkeypatch.delenv("JOYIMAGE_MODEL", raising=False)
    command = ["plan", "--memory", "32MB", "--device", "cpu", "--size", "64x64", "--references", "2"]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "64x64 pixels, references: 2, in 32.00 MB" in text and "expected peak" in text
    assert main([*command, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [part["name"] for part in report["parts"]] == ["encoder", "mmdit", "vae"]
    assert report["peak"] <= report["budget"] == 32_000_000


def test_a_plan_names_the_blocks_that_stream(capsys, monkeypatch):
    monkeypatch.delenv("JOYIMAGE_MODEL", raising=False)
    assert main(["plan", "--memory", "17MB", "--device", "cpu", "--size", "64x64", "--references", "1"]) == 0
    assert re.search(r"^mmdit .* [1-9] of \d blocks stay, [1-9] stream$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--memory", "lots"], "give a number and a unit"),
        (["--memory", "1MB"], "needs at least"),
        (["--memory", "1GB", "--references", "7"], "the model takes 0 to 6"),
        (["--memory", "1GB", "--size", "65x64"], "16"),
        ([], "plan needs a budget"),
    ],
)
def test_a_plan_that_can_not_be_is_one_line(capsys, monkeypatch, arguments, message):
    monkeypatch.delenv("JOYIMAGE_MODEL", raising=False)
    assert main(["plan", "--device", "cpu", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_edit_takes_a_memory(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("JOYIMAGE_MODEL", raising=False)
    monkeypatch.chdir(tmp_path)
    photograph().resize((64, 64)).save("cup.png")
    common = ["edit", "cup.png", "Hat", "--size", "64x64", "--steps", "1", "--quiet", "--device", "cpu"]
    pixels = []
    for options in ([], ["--memory", "12.5MB"]):
        assert main([*common, "-o", "out.png", *options]) == 0
        pixels.append(Image.open("out.png").tobytes())
    assert pixels[0] == pixels[1]


def test_several_edits_visit_each_network_once(monkeypatch):
    """However different their pictures: the encoder once, the MMDiT once, the VAE to encode and to decode."""
    model, visits = JoyImage.load("tiny", device="cpu", memory="14MB"), []
    at_work = Memory.at_work

    def counted(self, name, *rest):
        visits.append(name)
        return at_work(self, name, *rest)

    monkeypatch.setattr(Memory, "at_work", counted)
    scenes = [[photograph().crop((x, x, x + 200, x + 200))] for x in (0, 100, 200)]
    made = model.edit(scenes, "Remove the red cube.", negative_prompt="blur", steps=1, seed=[1, 2, 3])
    assert visits == ["encoder", "vae", "mmdit", "vae"]
    alone = JoyImage.load("tiny", device="cpu")
    for scene, picture, seed in zip(scenes, made, (1, 2, 3), strict=True):
        (expected,) = alone.edit(scene, "Remove the red cube.", negative_prompt="blur", steps=1, seed=seed)
        assert np.abs(np.asarray(picture, np.int16) - np.asarray(expected, np.int16)).max() <= 1
