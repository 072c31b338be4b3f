"""One picture's tokens over several processes: what comes of it is what one alone computes."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from live_memory import LiveMemory
from torch.utils.flop_counter import FlopCounterMode

from joyimage.caching import StepCache
from joyimage.config import MMDiTConfig
from joyimage.errors import JoyImageError
from joyimage.loading import Recipe
from joyimage.memory.budget import mmdit_activations
from joyimage.mmdit import MMDiT
from joyimage.parallel.devices import Devices
from joyimage.parallel.exchange import Exchange, Place
from joyimage.parallel.sequence import SequenceMMDiT
from joyimage.parallel.shares import exchanged, operations, share_of_memory, shares, speed

REFERENCES = {0: [], 1: [(8, 6)], 3: [(4, 6), (7, 5), (6, 6)]}  # latent sizes, odd ones too
PROMPTS = {"one": [7], "alike": [6, 6], "packed": [5, 9], "packed alike in parts": [3, 4, 3]}
HEADS = (2, 3, 5)
OPTIONS = {"exact": (1, 0.0), "references kept": (2, 0.0), "blocks kept": (1, 10.0)}
TIMES = (900.0, 600.0, 590.0)  # of the forwards in which something is kept; of the exact ones the first
TOLERANCE = 1e-5  # of velocities, whose magnitudes are about 1


def network(heads: int) -> MMDiT:
    config = MMDiTConfig(32 * heads, heads, 2, 16, 16, 48, 64 * heads, (1, 2, 2), (4, 14, 14), 10000.0)
    torch.manual_seed(heads)
    model = MMDiT(config)
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, 1.0 if "_norm" in name else 0.0, 0.1)
    return model.eval().requires_grad_(False)


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs(lengths, references):
    contexts = [draw(length, 48, seed=i) for i, length in enumerate(lengths)]
    pictures = [draw(len(lengths), 16, 1, *size, seed=10 + i) for i, size in enumerate(REFERENCES[references])]
    return draw(len(lengths), 16, 1, 8, 6, seed=20), contexts, pictures


def cases():
    """Heads, references, prompts and options: the same in every process."""
    for i, (references, prompts) in enumerate(product(REFERENCES, PROMPTS)):
        yield (HEADS[i % len(HEADS)], references, prompts, "exact")
    for options, prompts in product(OPTIONS, ("alike", "packed")):
        yield (5, 3, prompts, options)


@torch.inference_mode()
def computed(run, case, **shared):
    """The velocities of one run's forwards."""
    heads, references, prompts, options = case
    latent, contexts, pictures = inputs(PROMPTS[prompts], references)
    cache = StepCache(*OPTIONS[options], **shared)
    times = TIMES[:1] if options == "exact" and heads != 5 else TIMES
    return [run(latent * t / 1000, torch.full((len(latent),), t), contexts, pictures, cache) for t in times]


def in_process(index: int, count: int, folder: str) -> None:
    """All cases, as one of several processes; the first keeps the results."""
    torch.set_num_threads(1)
    results = {}
    with Exchange(Place(index, count, Path(folder, "group"), "gloo")) as exchange:
        for case in cases():
            run = SequenceMMDiT(network(case[0]), exchange)
            results[case] = computed(run, case, total=exchange.total)
    if index == 0:
        torch.save(results, Path(folder, "results"))
    else:
        assert all(velocity is None for velocities in results.values() for velocity in velocities)


@pytest.fixture(scope="module", params=[2, 4])
def shared(request, tmp_path_factory):
    """Velocities of all cases over so many processes."""
    folder = tmp_path_factory.mktemp("group")
    mp.spawn(in_process, (request.param, str(folder)), nprocs=request.param)
    return torch.load(folder / "results", weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS)
def test_several_processes_compute_what_one_does(shared, options):
    """Heads that divide and that do not, fewer heads than processes, prompts packed or not."""
    chosen = [case for case in shared if case[3] == options]
    assert len(chosen) >= 2
    for case in chosen:
        alone = computed(network(case[0]), case)
        for velocity, expected in zip(shared[case], alone, strict=True):
            torch.testing.assert_close(velocity, expected, rtol=0, atol=TOLERANCE, msg=lambda m, c=case: f"{c}: {m}")


@pytest.mark.slow
def test_what_is_kept_is_kept_in_all_processes(shared):
    """Each option gives results of its own, so that the test above does not compare exact runs alone."""
    exact, *others = [shared[5, 3, "packed", options] for options in OPTIONS]
    for other in others:
        torch.testing.assert_close(other[0], exact[0], rtol=0, atol=TOLERANCE)
        assert any((one - same).abs().max() > 100 * TOLERANCE for one, same in zip(other, exact, strict=True))


def test_shares_are_as_even_as_they_go():
    assert shares(5, 2) == [3, 2]
    assert shares(5, 4) == [2, 1, 1, 1]
    assert shares(2, 4) == [1, 1, 0, 0]


class Alone(Exchange):
    """One process's side of an exchange in which nothing arrives; counts what it sends to others."""

    def __init__(self, count: int, index: int = 0):
        self.place = Place(index, count, Path("nowhere"), "nccl")
        self.sent = 0

    def swap(self, pieces, shapes):
        self.sent += sum(piece.nbytes for i, piece in enumerate(pieces) if i != self.place.index)
        return super().swap(pieces, shapes)


PUBLISHED = {"hidden_size": 4096, "num_heads": 32, "num_layers": 2, "text_dim": 4096, "mlp_size": 16384}


def published_forward(exchange: Alone, references: int, text: int, monkeypatch) -> tuple[int, int]:
    """Bytes at once, and image and text tokens, of a forward of two published blocks at 1024 x 1024 pixels."""
    monkeypatch.setattr(dist, "all_to_all_single", lambda *_: None)
    mmdit = MMDiT(MMDiTConfig(**PUBLISHED), dtype=torch.bfloat16, device="meta")

    def empty(*shape, dtype=torch.bfloat16):
        return torch.empty(*shape, dtype=dtype, device="meta")

    latent, t = empty(1, 16, 1, 128, 128, dtype=torch.float32), empty(1, dtype=torch.float32)
    pictures, contexts = [empty(1, 16, 1, 128, 128) for _ in range(references)], [empty(text, 4096)]
    known = [latent, t, *pictures, *contexts, *mmdit.parameters()]
    with LiveMemory(known) as live, torch.inference_mode():
        SequenceMMDiT(mmdit, exchange)(latent, t, contexts, pictures, StepCache())
    return live.peak, 4096 * (1 + references) + text


@pytest.mark.parametrize("count", [2, 4, 8])
def test_a_share_takes_the_memory_that_is_planned_for_it(count, monkeypatch):
    peak, tokens = published_forward(Alone(count), 3, 3000, monkeypatch)
    planned = mmdit_activations(MMDiTConfig(**PUBLISHED), share_of_memory(tokens, count), 2)
    assert 0.85 * planned < peak <= planned


@pytest.mark.parametrize("count", [2, 4])
def test_a_process_sends_what_the_page_says(count, monkeypatch):
    """Queries, keys, values and results of its tokens, but for its own heads; in the last block queries and results of
    the target's alone."""
    exchange = Alone(count, index=1)
    _, tokens = published_forward(exchange, 1, 1096, monkeypatch)
    others = (count - 1) / count
    block = 4 * tokens / count * others * 4096 * 2
    last = (2 * tokens + 2 * 4096) / count * others * 4096 * 2
    assert exchange.sent == block + last + 4096 / count * 4096 * 2
    assert exchange.sent == exchanged(MMDiTConfig(**PUBLISHED), tokens, 4096, count, 2)


def test_operations_are_those_that_torch_counts():
    config = MMDiTConfig(**PUBLISHED)
    mmdit = MMDiT(config, dtype=torch.bfloat16, device="meta")
    mmdit.attention = lambda q, k, v: (
        torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    )

    def empty(*shape):
        return torch.empty(*shape, dtype=torch.bfloat16, device="meta")

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        mmdit(empty(1, 16, 1, 128, 128), empty(1), [empty(1100, 4096)], [empty(1, 16, 1, 128, 128)])
    total = sum(operations(config, 2 * 4096 + 1100, 4096))
    assert total <= counter.get_total_flops() < 1.03 * total  # embedders are more beside two blocks than beside forty


def test_the_speed_is_that_of_the_process_with_most_to_do():
    config = MMDiTConfig(**PUBLISHED)
    products, attention = operations(config, 9292, 4096)
    assert [speed(config, 9292, 4096, n) for n in (1, 2, 32)] == pytest.approx([1, 2, 32])
    assert speed(config, 9292, 4096, 3) == pytest.approx((products + attention) / (products / 3 + attention * 11 / 32))


# -- devices ----------------------------------------------------------------------------------------------------------


def test_devices_are_grouped():
    assert Devices.of() is None
    assert Devices.of(["cuda:0", "cuda:1"]).groups == (("cuda:0",), ("cuda:1",))
    assert Devices.of(None, ["cuda:0", "cuda:1", "cpu"]).groups == (("cuda:0", "cuda:1", "cpu"),)
    assert Devices.of(["a", "c"], list("abcd")).groups == (("a", "b"), ("c", "d"))


@pytest.mark.parametrize(
    ("guidance", "sequence", "device", "message"),
    [
        (["cpu"], None, None, "names 1 device; give two"),
        (["cpu"] * 3, None, None, "names 3 devices; give two"),
        (None, ["cpu"], None, "names one device"),
        ("cuda:0", None, None, "give a list of devices"),
        (None, [], None, "give a list of devices"),
        (["a", "b"], list("abc"), None, "give an even number"),
        (["a", "b"], list("abcd"), None, "begin with the guidance_devices: a,c, not a,b"),
        (["cuda:0", "cuda:1"], None, "cuda:1", "the first of guidance_devices is cuda:0"),
    ],
)
def test_devices_that_do_not_go_together_are_refused(guidance, sequence, device, message):
    with pytest.raises(JoyImageError, match=message):
        Devices.of(guidance, sequence, device)


def test_no_group_has_more_devices_than_there_are_heads():
    Devices.of(None, ["cpu"] * 5).check_heads(5)
    Devices.of(["cpu"] * 2, ["cpu"] * 10).check_heads(5)
    with pytest.raises(JoyImageError, match=r"6 devices, and the model's attention has 5 heads, .* name at most 5"):
        Devices.of(None, ["cpu"] * 6).check_heads(5)
    with pytest.raises(JoyImageError, match=r"6 devices, .* name at most 10"):
        Devices.of(["cpu"] * 2, ["cpu"] * 12).check_heads(5)


def test_a_card_that_is_named_twice_is_told():
    assert Devices.of(["cuda", "cuda:0"]).shared_cards == ["cuda:0"]
    assert Devices.of(["mps", "mps"]).shared_cards == ["mps:0"]
    assert Devices.of(["cuda:0", "cuda:1"]).shared_cards == Devices.of(["cpu", "cpu"]).shared_cards == []
    recipe = Recipe("tiny", {}, None, None, "exact", "auto", False, None)
    with pytest.warns(UserWarning, match="cuda:1 is named more than once"):
        recipe._check_devices(Devices.of(["cuda:1", "cuda:1"]))


def test_a_process_that_will_not_come_is_not_waited_for(tmp_path):
    """As where it was killed between loading the model and joining the group."""

    def gone():
        raise JoyImageError("it is gone")

    with pytest.raises(JoyImageError, match="it is gone"):
        Exchange(Place(0, 2, tmp_path / "group", "gloo"), gone)
    assert not dist.is_initialized()


def test_a_second_group_in_a_process_is_refused(tmp_path):
    with Exchange(Place(0, 1, tmp_path / "one", "gloo")) as one:
        assert one.total(torch.tensor([3.0])).item() == 3
        with pytest.raises(JoyImageError, match="in a group already"):
            Exchange(Place(0, 1, tmp_path / "two", "gloo"))
    assert not dist.is_initialized()
