"""One step of training against a plain loop over a plain network, with two products beside each layer by a hook."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from test_training import run
from torch import Tensor, nn
from trained import Samples, network, sample, samples

from joyimage import JoyImage, JoyImageError, tiny
from joyimage.checkpoints import convert
from joyimage.memory.budget import measure, place
from joyimage.memory.streaming import Pinned, Worker
from joyimage.mmdit import MMDiT
from joyimage.quantisation.layers import Quantisable
from joyimage.sampling import guide
from joyimage.training.batches import Batches, generators
from joyimage.training.objectives import Batch, Drawn, noised, times, velocity_loss, weights_of
from joyimage.training.settings import Training
from joyimage.training.trainer import Run

CPU = torch.device("cpu")
PLAIN = Training(steps=3, batch_size=2, rank=3, alpha=2.0, drop_prompts=0.5, checkpointing=False, sample_every=0)


def copied(mmdit: MMDiT) -> MMDiT:
    """The same network of torch's own layers, its weights floating point."""
    made = MMDiT(mmdit.config)
    state = {}
    for name, module in mmdit.named_modules():
        own = {f"{name}.{key}".lstrip("."): p.detach().float() for key, p in module.named_parameters(recurse=False)}
        if isinstance(module, Quantisable) and module.packed is not None:
            own[f"{name}.weight"] = module.packed.dense(torch.float32)
        state |= own
    made.load_state_dict(state)
    return made.requires_grad_(False)


def stirred(work: Run) -> None:
    """Give the updates some size: at first all gradients of what comes down are zero."""
    work.adapter.load({
        name: 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
        for i, (name, p) in enumerate(work.adapter.tensors().items())
    })  # fmt: skip


def plain_gradients(base: MMDiT, work: Run) -> tuple[dict[str, Tensor], float]:
    """By the names of the adapter's tensors, for its first step; and the loss."""
    own = {name: p.detach().clone().requires_grad_() for name, p in work.adapter.tensors().items()}
    scale = work.settings.alpha / work.settings.rank

    def beside(layer: str, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        down, up = (own[f"{layer}.lora_{part}.default.weight"] for part in "AB")
        return output + inputs[0] @ down.mT @ up.mT * scale

    for layer in work.adapter.names:
        base.get_submodule(layer).register_forward_hook(partial(beside, layer))
    chosen = [work.samples[i] for i in work.batches[0]]
    batch = Batch.of(chosen, work.settings, CPU, torch.float32)
    drawn = Drawn.of(batch, work.settings, generators(work.settings.seed, 0, len(chosen)))
    loss = torch.zeros(())
    for i, one in enumerate(chosen):  # one by one
        sigma, noise = drawn.sigma[i], drawn.noise[i]
        x = ((1 - sigma) * one.latent + sigma * noise)[None]
        prompt = one.empty if drawn.dropped[i] else one.context
        velocity = base(x, 1000 * sigma[None], prompt[None], [reference[None] for reference in one.references])
        loss = loss + (velocity[0] - (noise - one.latent)).square().mean() / len(chosen)
    loss.backward()
    return {name: p.grad for name, p in own.items() if p.grad is not None}, loss.item()


def compare(work: Run, base: MMDiT, bound: float) -> None:
    stirred(work)
    wanted, loss = plain_gradients(base, work)
    with work.room():
        assert work.gradients(0) == pytest.approx(loss, rel=bound)
    found = {name: p.grad for name, p in work.adapter.tensors().items() if p.grad is not None}
    assert found.keys() == wanted.keys() and len(found) == len(work.adapter.tensors())
    whole = torch.cat([gradient.flatten() for gradient in wanted.values()]).norm()
    apart = torch.stack([(found[name] - gradient).norm() for name, gradient in wanted.items()])
    assert apart.norm() <= bound * whole


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_steps_gradient_is_that_of_a_plain_loop(tmp_path, checkpointing):
    mmdit = network()
    base = copied(mmdit)
    with run(mmdit, samples(), tmp_path, PLAIN, checkpointing=checkpointing) as work:
        compare(work, base, 1e-6)


@pytest.mark.parametrize("held", [2, 3])
def test_with_streamed_blocks_it_is_the_same_to_the_bit(tmp_path, held):
    """Twice: the second pass finds the blocks as the first one's way back has left them."""
    gradients = []
    for streams in (False, True):
        mmdit = network()
        with run(mmdit, samples(), tmp_path / str(streams), PLAIN, checkpointing=True) as work:
            stirred(work)
            worker = Worker(mmdit, [list(mmdit.double_blocks)], CPU, Pinned(0))
            if streams:
                part = measure("mmdit", mmdit, {"blocks": mmdit.double_blocks})
                worker.enter(place(part, 0, part.rest + held * max(part.groups[0].blocks)))
            for step in (0, 1):
                for p in work.adapter.parameters():
                    p.grad = None
                work.gradients(step)
                gradients.append({name: p.grad for name, p in work.adapter.tensors().items()})
            worker.leave()
    for resident, streamed in zip(gradients[:2], gradients[2:], strict=True):
        assert all(torch.equal(resident[name], streamed[name]) for name in resident)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["int8", "fp8"])
def test_over_quantised_weights_that_stream_it_is_the_same(tmp_path, form):
    file = tmp_path / "mmdit.safetensors"
    convert(tiny.FILES["mmdit"], file, format=form)
    model = JoyImage.load(
        mmdit=file, vae=tiny.FILES["vae"], encoder=tiny.FILES["encoder"], tokenizer=tiny.TOKENIZER, device="cpu",
        dtype=torch.float32, memory="12.5MB",
    )  # fmt: skip
    width = model.mmdit.config.text_dim
    drawn = Samples(
        sample(i, (8, 8)).__class__(s.latent, s.references, torch.randn(5, width), torch.randn(4, width))
        for i, s in enumerate(sample(i, (8, 8)) for i in range(2))
    )
    base = copied(model.mmdit)
    room = partial(model.memory.at_work, "mmdit", 0)
    with run(model.mmdit, drawn, tmp_path, PLAIN, room=room, checkpointing=True) as work:
        compare(work, base, 1e-3)


def test_accumulated_batches_are_one_large_one(tmp_path):
    """Where nothing is drawn that depends on the batch: the mean of the parts' gradients."""
    with run(network(), samples(), tmp_path, PLAIN, accumulation=3) as work:
        stirred(work)
        work.gradients(0)
        found = [p.grad.clone() for p in work.adapter.parameters()]
    parts = []
    with run(network(), samples(), tmp_path, PLAIN) as work:
        stirred(work)
        for number in range(3):
            for p in work.adapter.parameters():
                p.grad = None
            work.gradients(number)
            parts.append([p.grad.clone() for p in work.adapter.parameters()])
    for together, *apart in zip(found, *parts, strict=True):
        torch.testing.assert_close(together, torch.stack(apart).mean(0), atol=1e-6, rtol=1e-4)


# -- objectives -------------------------------------------------------------------------------------------------------


def test_guidance_asks_for_what_the_base_does_under_guidance(tmp_path):
    """The loss at first is the distance of one pass from the guided velocity, whatever the latents are."""
    mmdit = network()
    base = copied(mmdit)
    settings = dict(objective="guidance", guidance_scale=3.0, teacher_steps=2, adapter="lora")
    with run(mmdit, samples(), tmp_path, PLAIN, **settings) as work:
        work.start(None, None)
        found = work.gradients(0)
        chosen = [work.samples[i] for i in work.batches[0]]
        batch = Batch.of(chosen, work.settings, CPU, torch.float32)
        drawn = Drawn.of(batch, work.settings, generators(0, 0, len(chosen)))
    x, t = noised(batch, drawn), 1000 * drawn.sigma
    cond, uncond = (base(x, t, texts, batch.references) for texts in (batch.contexts, batch.empties))
    assert found == pytest.approx((cond - guide(cond, uncond, 3.0)).square().mean().item(), rel=1e-4)


def test_noise_levels_are_logit_normal_and_shifted():
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([times(1.5, generator) for _ in range(4000)])
    assert drawn.min() > 0 and drawn.max() < 1
    logits = drawn.logit() - torch.tensor(1.5).log()  # a shift moves logits by its logarithm
    assert abs(logits.mean()) < 0.05 and abs(logits.std() - 1) < 0.05


def test_the_loss_counts_where_its_weights_say():
    velocity, wanted = torch.zeros(2, 16, 1, 2, 2), torch.zeros(2, 16, 1, 2, 2)
    wanted[0, :, :, 0, 0], wanted[1] = 2.0, 1.0
    weights = torch.zeros(2, 1, 2, 2)
    weights[:, :, 0, 0] = 1.0
    assert velocity_loss(velocity, wanted).item() == pytest.approx((1.0 + 1.0) / 2)
    assert velocity_loss(velocity, wanted, weights).item() == pytest.approx((4.0 + 1.0) / 2)


def test_a_mask_leaves_the_background_its_share():
    one = sample(0, mask=True)
    weights = weights_of(one, Training(loss="mask", background=0.25))
    assert torch.equal(weights, torch.where(one.mask[0] > 0, 1.0, 0.25))
    assert weights_of(one, Training()) is None
    assert torch.equal(weights_of(sample(0), Training(loss="mask")), torch.ones(1, 4, 4))


def test_what_is_drawn_for_a_sample_depends_on_its_step_and_place_alone():
    three = Batch.of([sample(i) for i in range(3)], PLAIN, CPU, torch.float32)
    two = Batch.of([sample(i) for i in range(2)], PLAIN, CPU, torch.float32)
    whole, part = (Drawn.of(batch, PLAIN, generators(5, 9, len(batch.latent))) for batch in (three, two))
    assert torch.equal(whole.noise[:2], part.noise) and torch.equal(whole.sigma[:2], part.sigma)
    other = Drawn.of(two, PLAIN, generators(5, 10, 2))
    assert not torch.equal(other.noise, part.noise)


def test_batches_are_of_one_shape_and_each_sample_comes_in_a_round():
    shapes = [((16, 1, 4, 4 + 2 * (i % 3)),) for i in range(10)]
    batches = Batches(shapes, 3, seed=1)
    rounds = [[batches[k] for k in range(r * batches.per_round, (r + 1) * batches.per_round)] for r in range(2)]
    for made in rounds:
        assert all(len(batch) == 3 and len({shapes[i] for i in batch}) == 1 for batch in made)
        assert {i for batch in made for i in batch} == set(range(10))
    assert rounds[0] != rounds[1]
    assert [batches[k] for k in range(batches.per_round)] == rounds[0]
    with pytest.raises(JoyImageError, match="empty"):
        Batches([], 3, seed=1)


def test_layers_that_multiply_in_bf16_give_about_the_same(tmp_path):
    losses = {}
    for precision in ("model", "bf16"):
        with run(network(), samples(), tmp_path / precision, PLAIN, precision=precision) as work:
            stirred(work)
            losses[precision] = work.gradients(0)
            assert all(p.grad.dtype == torch.float32 for p in work.adapter.parameters())
    assert losses["bf16"] != losses["model"] and losses["bf16"] == pytest.approx(losses["model"], rel=0.05)


def test_the_adapter_is_float32_over_weights_in_bf16(tmp_path):
    mmdit = network().to(torch.bfloat16)
    mmdit.condition_embedder.time_embedder.float()
    with run(mmdit, samples(), tmp_path, PLAIN) as work:
        stirred(work)
        assert work.gradients(0) > 0
        assert all(p.dtype == p.grad.dtype == torch.float32 for p in work.adapter.parameters())
        assert nn.Linear in type(mmdit.double_blocks[0].attn.img_attn_qkv.get_base_layer()).__mro__
