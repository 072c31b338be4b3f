"""The MMDiT: a double-stream transformer that predicts the rectified-flow velocity of a target latent.

arXiv 2605.04128; the layout follows SD3 and Flux double blocks with Wan's modulation tables. Attribute names
are the keys of the published checkpoints in Diffusers' naming. One path serves text to image, one reference
(Edit) and several references of different sizes (Edit-Plus).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from . import rope
from .attention import Attention, attention
from .caching import KeptReferences, StepCache, as_is
from .config import TIME_CHANNELS, MMDiTConfig
from .errors import JoyImageError
from .operations import Operations
from .rope import Rotary

Streams = tuple[Tensor, Tensor]  # image tokens, text tokens
# In the place of `DoubleBlock.forward`, from the same inputs
RunBlock = Callable[..., "tuple[Tensor, Tensor | None]"]


class Modulation(nn.Module):
    """Six vectors per sample: a learned table plus the time projection, as in Wan."""

    def __init__(self, hidden_size: int, *, dtype=None, device=None):
        super().__init__()
        self.modulate_table = nn.Parameter(torch.zeros(1, 6, hidden_size, dtype=dtype, device=device))

    def forward(self, time: Tensor) -> Tensor:
        """(B, 6, D) -> shift, factor (1 + scale), gate of the attention, then of the MLP, again (B, 6, D)."""
        vectors = self.modulate_table.to(time) + time
        vectors[:, 1::3].add_(1)
        return vectors


class GELUProjection(nn.Module):
    def __init__(self, hidden_size: int, mlp_size: int, *, operations, dtype=None, device=None):
        super().__init__()
        self.proj = operations.Linear(hidden_size, mlp_size, dtype=dtype, device=device)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.proj(x), approximate="tanh")


class MLP(nn.Module):
    def __init__(self, hidden_size: int, mlp_size: int, *, operations, dtype=None, device=None):
        super().__init__()
        factory = {"dtype": dtype, "device": device}
        self.net = nn.Sequential(
            GELUProjection(hidden_size, mlp_size, operations=operations, **factory),
            nn.Identity(),  # the dropout of the checkpoints' key numbering
            operations.Linear(mlp_size, hidden_size, **factory),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class TwoLayers(nn.Module):
    """Linear, activation, Linear: the time and the text embedder."""

    def __init__(self, in_size: int, hidden_size: int, activation, *, operations, dtype=None, device=None):
        super().__init__()
        self.linear_1 = operations.Linear(in_size, hidden_size, dtype=dtype, device=device)
        self.activation = activation
        self.linear_2 = operations.Linear(hidden_size, hidden_size, dtype=dtype, device=device)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(self.activation(self.linear_1(x)))


class ConditionEmbedder(nn.Module):
    def __init__(self, config: MMDiTConfig, *, operations, dtype=None, device=None):
        super().__init__()
        size, factory = config.hidden_size, {"operations": operations, "device": device}
        # float32 whatever the rest is: t = 731.25 in bf16 is 732, which moves v by 0.27.
        self.time_embedder = TwoLayers(TIME_CHANNELS, size, F.silu, dtype=torch.float32, **factory)
        self.time_proj = operations.Linear(size, 6 * size, dtype=dtype, device=device)
        self.text_embedder = TwoLayers(config.text_dim, size, _gelu_tanh, dtype=dtype, **factory)

    def time(self, t: Tensor, dtype: torch.dtype) -> Tensor:
        """t (B,) in [0, 1000] -> the six modulation vectors (B, 6, D)."""
        embedding = self.time_embedder(sinusoid(t, TIME_CHANNELS)).to(dtype)
        return self.time_proj(F.silu(embedding)).unflatten(-1, (6, -1))


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def sinusoid(t: Tensor, channels: int) -> Tensor:
    """Cosines then sines of `t` (B,) at `channels / 2` frequencies from 1 down to 1/10000, (B, channels) float32."""
    half = channels // 2
    freqs = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = t.float()[:, None] * freqs
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class JointAttention(nn.Module):
    """Attention over image and text tokens together, with separate projections."""

    def __init__(self, config: MMDiTConfig, *, operations, dtype=None, device=None):
        super().__init__()
        size, head, factory = config.hidden_size, config.head_dim, {"dtype": dtype, "device": device}
        self.heads = config.num_heads
        self.img_attn_qkv = operations.Linear(size, 3 * size, **factory)
        self.img_attn_q_norm = operations.RMSNorm(head, eps=1e-6, **factory)
        self.img_attn_k_norm = operations.RMSNorm(head, eps=1e-6, **factory)
        self.img_attn_proj = operations.Linear(size, size, **factory)
        self.txt_attn_qkv = operations.Linear(size, 3 * size, **factory)
        self.txt_attn_q_norm = operations.RMSNorm(head, eps=1e-6, **factory)
        self.txt_attn_k_norm = operations.RMSNorm(head, eps=1e-6, **factory)
        self.txt_attn_proj = operations.Linear(size, size, **factory)

    def heads_of(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(…, N, 3D) -> q, k and v, each (…, N, heads, head_dim)."""
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).unbind(-3)
        return q, k, v

    def forward(
        self, img: Tensor, txt: Tensor, packing: Packing, queries: int | None, kept: KeptReferences | None
    ) -> tuple[Tensor, Tensor | None]:
        """Attend over [img, txt] of each sample; `queries` limits the output to the first image tokens."""
        img_q, img_k, img_v = self.heads_of(self.img_attn_qkv(img))
        txt_q, txt_k, txt_v = self.heads_of(self.txt_attn_qkv(txt))
        if queries is not None:
            img_q, txt_q = img_q[:, :queries], txt_q[:, :0]
        images, rotary, angles = img_q.shape[1], packing.rotary, packing.angles
        keys, values = (as_is, as_is) if kept is None else (kept.keys, kept.values)
        # one after the other and without a name, so that only one is there in float32 as well
        q = packing.sequences(rotary(img_q, self.img_attn_q_norm, angles[:images]), self.txt_attn_q_norm(txt_q))
        k = packing.sequences(keys(rotary(img_k, self.img_attn_k_norm, angles)), self.txt_attn_k_norm(txt_k))
        v = packing.sequences(values(img_v), txt_v)
        img_out, txt_out = packing.split(packing.attend(q, k, v), images)
        return self.img_attn_proj(img_out), None if queries is not None else self.txt_attn_proj(txt_out)


class DoubleBlock(nn.Module):
    def __init__(self, config: MMDiTConfig, *, operations, dtype=None, device=None):
        super().__init__()
        size, factory = config.hidden_size, {"dtype": dtype, "device": device}
        self.img_mod = Modulation(size, **factory)
        self.img_mlp = MLP(size, config.mlp_size, operations=operations, **factory)
        self.txt_mod = Modulation(size, **factory)
        self.txt_mlp = MLP(size, config.mlp_size, operations=operations, **factory)
        self.attn = JointAttention(config, operations=operations, **factory)

    def forward(
        self, img: Tensor, txt: Tensor, time: Tensor, packing: Packing, queries: int | None = None,
        kept: KeptReferences | None = None,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """One block over the image tokens (B, N, D) and the text tokens as `packing` arranges them.

        With `queries`, only the first `queries` image tokens are computed and returned, and no text. Keys and values
        still come from every token, and from those that are `kept`.
        """
        if packing.run_block is not None:
            return packing.run_block(self, img, txt, time, packing, queries, kept)
        shift1, factor1, gate1, shift2, factor2, gate2 = self.img_mod(time)[:, :, None].unbind(1)
        t_shift1, t_factor1, t_gate1, t_shift2, t_factor2, t_gate2 = packing.spread(self.txt_mod(time)).unbind(2)
        img_out, txt_out = self.attn(
            modulate(img, shift1, factor1), modulate(txt, t_shift1, t_factor1), packing, queries, kept
        )
        img = torch.addcmul(img[:, :queries], img_out, gate1)
        img = torch.addcmul(img, self.img_mlp(modulate(img, shift2, factor2)), gate2)
        if queries is not None:
            return img, None
        txt = torch.addcmul(txt, txt_out, t_gate1)
        return img, torch.addcmul(txt, self.txt_mlp(modulate(txt, t_shift2, t_factor2)), t_gate2)


def modulate(x: Tensor, shift: Tensor, factor: Tensor) -> Tensor:
    """LayerNorm without affine (statistics in float32 inside the kernel), then `x * factor + shift`."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=1e-6), factor)


class Packing:
    """How the tokens of a batch lie in memory, and how they attend.

    Image tokens are (B, N, D). Text tokens are (B, L, D) when all prompts have one length, else packed end to end
    as (1, sum of lengths, D): no padding is computed and none is attended to, so a sample's result does not
    depend on the batch it is in (with padding, latents of std 1.4 were 0.3 to 1.0 off).
    """

    def __init__(
        self,
        lengths: Sequence[int],
        targets: int,
        freqs: Tensor,
        attention: Attention,
        rotary: Rotary,
        run_block: RunBlock | None = None,
    ):
        self.lengths = list(lengths)
        self.targets = targets  # how many image tokens are the target's; they come first, then the references'
        self.freqs = freqs  # (N, head_dim / 2, 2) float32
        self.attention = attention
        self.rotary = rotary
        self.angles = rotary.angles(freqs)
        self.run_block = run_block
        self.packed = len(set(self.lengths)) > 1

    @cached_property
    def samples(self) -> Tensor:
        """The sample of each text token, all in a row: one copy to the device for all blocks."""
        counts = torch.tensor(self.lengths, device=self.freqs.device)
        samples = torch.arange(len(self.lengths), device=self.freqs.device)
        return samples.repeat_interleave(counts, output_size=sum(self.lengths))

    def join(self, texts: Tensor | Sequence[Tensor]) -> Tensor:
        """Prompts (L_i, D) -> text tokens."""
        return torch.cat(list(texts))[None] if self.packed else torch.stack(list(texts))

    def spread(self, vectors: Tensor) -> Tensor:
        """Vectors per sample (B, k, D) -> (B, 1, k, D), or (1, L, k, D) of packed text, for all of its tokens."""
        return vectors[self.samples][None] if self.packed else vectors[:, None]

    def sequences(self, img: Tensor, txt: Tensor) -> list[Tensor]:
        """Image and text tokens (B, N, heads, head_dim), joined for what attends together: all samples, or each.

        In the dtype of the text: rotated tokens are float32 until here. There may be no text.
        """
        if not self.packed:
            return [together(img, txt)]
        texts = txt.split(self.lengths if txt.shape[1] else [0] * len(self.lengths), dim=1)
        return [together(img[i : i + 1], text) for i, text in enumerate(texts)]

    def attend(self, q: list[Tensor], k: list[Tensor], v: list[Tensor]) -> list[Tensor]:
        """Attention within each of `sequences` -> (B or 1, tokens, D)."""
        return [self.attention(*(x.transpose(1, 2) for x in qkv)) for qkv in zip(q, k, v, strict=True)]

    def split(self, attended: list[Tensor], images: int) -> Streams:
        """What `attend` gives, of which the first `images` tokens are the image's -> (B, N, D), and the text's."""
        if not self.packed:
            return attended[0][:, :images], attended[0][:, images:]
        images_out = torch.cat([each[:, :images] for each in attended])
        return images_out, torch.cat([each[:, images:] for each in attended], dim=1)


def together(img: Tensor, txt: Tensor) -> Tensor:
    if img.dtype == txt.dtype:
        return torch.cat([img, txt], dim=1)
    out = txt.new_empty(len(img), img.shape[1] + txt.shape[1], *txt.shape[2:])
    out[:, : img.shape[1]] = img
    out[:, img.shape[1] :] = txt
    return out


class MMDiT(nn.Module):
    """Predicts v = noise - x0 for the target latent, given the prompt and up to six reference latents.

    `operations` holds the layer classes (`torch.nn`, or a host's), `attention` the attention function. The network
    computes in the dtype of `context`, and its time embedder always in float32. `run_block`, where it is set, runs the
    blocks.
    """

    run_block: RunBlock | None = None

    def __init__(
        self,
        config: MMDiTConfig | None = None,
        *,
        operations: Operations = nn,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        attention: Attention = attention,
    ):
        super().__init__()
        self.config = config = config or MMDiTConfig()
        self.attention = attention
        size, patch, factory = config.hidden_size, config.patch_size, {"dtype": dtype, "device": device}
        self.img_in = operations.Conv3d(config.in_channels, size, kernel_size=patch, stride=patch, **factory)
        self.condition_embedder = ConditionEmbedder(config, operations=operations, **factory)
        self.double_blocks = nn.ModuleList(
            DoubleBlock(config, operations=operations, **factory) for _ in range(config.num_layers)
        )
        self.proj_out = operations.Linear(size, config.out_channels * math.prod(patch), **factory)

    def forward(
        self,
        latent: Tensor,
        t: Tensor,
        context: Tensor | Sequence[Tensor],
        references: Sequence[Tensor] = (),
        cache: StepCache | None = None,
    ) -> Tensor:
        """The velocity of `latent` (B, 16, 1, h, w) at time `t` (B,) in [0, 1000], of the same shape and dtype.

        `context` is (B, L, text_dim), or a sequence of B prompts (L_i, text_dim) of any lengths: each sample gets
        what it would get alone. `references` are clean latents (B, 16, 1, h_i, w_i), each of its own size.
        Odd heights and widths are padded to the patch and the result cropped.
        `cache` keeps what is the same in all forwards of a run with these contexts and references, and what its options
        say. Raises `JoyImageError` when shapes do not fit.
        """
        cache = cache or StepCache()
        self._check(latent, t, context, references)
        references = cache.references(references)
        img, txt, time, packing = self.embed(latent, t, context, references, self.attention, cache)
        kept = cache.keeping(len(self.double_blocks), packing.targets, len(references), img.dtype)
        last = len(self.double_blocks) - 1

        def run(i: int, img: Tensor, txt: Tensor) -> Streams:
            return self.double_blocks[i](img, txt, time, packing, packing.targets if i == last else None, kept[i])

        return self.project(cache.through(last + 1, run, img, txt, packing.targets), latent)

    def embed(
        self,
        latent: Tensor,
        t: Tensor,
        context: Tensor | Sequence[Tensor],
        references: Sequence[Tensor],
        attention: Attention,
        cache: StepCache | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Packing]:
        """What the blocks take: image tokens (B, N, D), text tokens, modulation (B, 6, D), and their packing.

        `embed`, the blocks and `project` are `forward`; a host that does something between blocks calls them itself.
        """
        dtype, cache = context[0].dtype, cache or StepCache()
        batch = f"references of {len(latent)}"  # of both prompts together, or of one
        kept = cache.once_for_all(batch, lambda: [self.patchify(image.to(dtype)) for image in references])
        # none where their keys and values are kept
        images = [self.patchify(latent.to(dtype)), *kept[: len(references)]]  # (B, D, 1, rows, columns)
        grids = [(image.shape[3], image.shape[4]) for image in images]
        freqs = rope.frequencies(grids, self.config.rope_dims, self.config.theta, latent.device)
        rotary = self.rotary_for(latent.device)
        packing = Packing(list(map(len, context)), math.prod(grids[0]), freqs, attention, rotary, self.run_block)
        img = torch.cat([rearrange(image, "b d 1 r c -> b (r c) d") for image in images], dim=1)
        txt = cache.once("text", lambda: self.condition_embedder.text_embedder(packing.join(context)))
        return img, txt, self.condition_embedder.time(t, dtype), packing

    def rotary_for(self, device: torch.device) -> Rotary:
        """What normalises and rotates queries and keys on a device; a host may have its own."""
        return rope.rotary_for(device)

    def project(self, img: Tensor, latent: Tensor) -> Tensor:
        """The target's tokens (B, rows * columns, D) -> the velocity, in the shape and dtype of `latent`."""
        _, ph, pw = self.config.patch_size
        height, width = latent.shape[3:]
        out = self.proj_out(F.layer_norm(img, img.shape[-1:], eps=1e-6))
        return self.unpatchify(out, -(-height // ph), -(-width // pw))[..., :height, :width].to(latent.dtype)

    def patchify(self, image: Tensor) -> Tensor:
        """(B, C, 1, h, w) -> (B, D, 1, rows, columns), the last row and column repeated to fill a patch."""
        _, ph, pw = self.config.patch_size
        bottom, right = -image.shape[3] % ph, -image.shape[4] % pw
        if bottom or right:
            image = F.pad(image, (0, right, 0, bottom, 0, 0), mode="replicate")
        return self.img_in(image)

    def unpatchify(self, tokens: Tensor, rows: int, columns: int) -> Tensor:
        """(B, rows * columns, ph * pw * C), channels last in the patch -> (B, C, 1, rows * ph, columns * pw)."""
        _, ph, pw = self.config.patch_size
        return rearrange(tokens, "b (r c) (ph pw ch) -> b ch 1 (r ph) (c pw)", r=rows, c=columns, ph=ph, pw=pw)

    def _check(self, latent, t, context, references) -> None:
        batch, channels = len(latent), self.config.in_channels
        for name, image in [("latent", latent), *((f"reference {i}", r) for i, r in enumerate(references))]:
            if image.ndim != 5 or image.shape[:3] != (batch, channels, 1):
                raise JoyImageError(
                    f"MMDiT: the {name} has shape {tuple(image.shape)}; "
                    f"expected ({batch}, {channels}, 1, height, width)"
                )
        if t.shape != (batch,):
            raise JoyImageError(f"MMDiT: t has shape {tuple(t.shape)}; expected ({batch},), one time per sample")
        shapes = [tuple(prompt.shape) for prompt in context]
        if len(shapes) != batch or any(len(s) != 2 or s[1] != self.config.text_dim for s in shapes):
            raise JoyImageError(
                f"MMDiT: the context has prompts of shape {shapes}; "
                f"expected {batch} of (length, {self.config.text_dim})"
            )
