"""An MMDiT of whose tokens each process has a part: sequence parallelism after DeepSpeed-Ulysses (arXiv 2309.14509).

All that a block does to single tokens it does to those of its process. For attention the processes change tokens for
heads: each gets some of the heads of all tokens, attends, and gives each process its tokens back. Heads that do not go
up in the number of processes are shared out unevenly, so 5 heads go 3 and 2, or 2, 1, 1 and 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..attention import Attention
from ..caching import StepCache
from ..mmdit import MMDiT, Packing, Streams
from .exchange import Exchange
from .shares import shares


def share_of(x: Tensor, sizes: Sequence[int], index: int, dim: int = 1) -> Tensor:
    """One process's run of neighbours along `dim`."""
    return x.narrow(dim, sum(sizes[:index]), sizes[index])


@dataclass(frozen=True)
class Shares:
    """How many tokens of a forward each process has: of the target, of all references, and of each prompt.

    `running` are the references' that run along: none, where their keys and values are kept. Prompts of one length
    are one.
    """

    targets: list[int]
    references: list[int]
    running: list[int]
    texts: list[list[int]]

    @classmethod
    def of(cls, packing: Packing, tokens: int, references: int, count: int) -> Shares:
        """Of a forward over so many image tokens, with so many tokens of references that run or are kept."""
        lengths = packing.lengths if packing.packed else packing.lengths[:1]
        return cls(
            shares(packing.targets, count),
            shares(references, count),
            shares(tokens - packing.targets, count),
            [shares(length, count) for length in lengths],
        )

    def queries(self, text: int, last: bool) -> list[int]:
        """Each process's tokens that attend with a prompt: in the last block those of the target alone."""
        if last:
            return self.targets
        return [sum(each) for each in zip(self.targets, self.running, self.texts[text], strict=True)]

    def keys(self, text: int) -> list[int]:
        """Each process's tokens that are attended to with a prompt."""
        return [sum(each) for each in zip(self.targets, self.references, self.texts[text], strict=True)]

    def image(self, x: Tensor, index: int, dim: int = 1) -> Tensor:
        """One process's image tokens: its part of the target's, then its part of the references'."""
        target, references = x.split([sum(self.targets), sum(self.running)], dim)
        parts = share_of(target, self.targets, index, dim), share_of(references, self.running, index, dim)
        return torch.cat(parts, dim)

    def text(self, x: Tensor, index: int) -> Tensor:
        """One process's text tokens: its part of each prompt."""
        prompts = x.split([sum(sizes) for sizes in self.texts], dim=1)
        return torch.cat([share_of(p, sizes, index) for p, sizes in zip(prompts, self.texts, strict=True)], dim=1)


class SequencePacking(Packing):
    """How one process's tokens lie, and how they attend to those of all processes."""

    def __init__(self, whole: Packing, parts: Shares, exchange: Exchange, last: bool):
        index = exchange.place.index
        lengths = [sizes[index] for sizes in parts.texts]
        super().__init__(
            lengths if whole.packed else lengths * len(whole.lengths),
            parts.targets[index],
            parts.image(whole.freqs, index, dim=0),
            whole.attention,
            whole.rotary,
            whole.run_block,
        )
        self.packed = whole.packed  # of all processes, though here prompts may have come to one length
        self._parts, self._exchange, self._last = parts, exchange, last

    def attend(self, q: list[Tensor], k: list[Tensor], v: list[Tensor]) -> list[Tensor]:
        """As for all tokens: each sequence holds this process's -> (B or 1, tokens, D)."""
        attention = partial(attend_over_all, exchange=self._exchange, attention=self.attention)
        return [
            attention(
                *(x.transpose(1, 2) for x in qkv),
                queries=self._parts.queries(text, self._last),
                keys=self._parts.keys(text),
            )
            for text, qkv in enumerate(zip(q, k, v, strict=True))
        ]


def attend_over_all(
    q: Tensor, k: Tensor, v: Tensor, *, queries: list[int], keys: list[int], exchange: Exchange, attention: Attention
) -> Tensor:
    """Attention of this process's q to the k and v of all, each (B, heads, tokens, head_dim) -> (B, tokens, D).

    `queries` and `keys` are how many tokens each process has. They come in the order of the processes, and sums over
    them in another than on one device: so float32 results differ by some 1e-6.
    """
    batch, heads, _, width = q.shape
    index = exchange.place.index
    per_process = shares(heads, len(queries))
    sent = (torch.cat(part, dim=2) for part in zip(*(x.split(per_process, dim=1) for x in (q, k, v)), strict=True))
    shapes = [(batch, per_process[index], own + 2 * other, width) for own, other in zip(queries, keys, strict=True)]
    # from each process q, k and v of our heads
    parts = [
        got.split([own, other, other], dim=2)
        for got, own, other in zip(exchange.swap(list(sent), shapes), queries, keys, strict=True)
    ]
    all_q, all_k, all_v = (torch.cat(each, dim=2) for each in zip(*parts, strict=True))
    alone = per_process[index] == 0  # there are fewer heads than processes
    # (B, all queries, our heads * head_dim)
    out = q.new_empty(batch, sum(queries), 0) if alone else attention(all_q, all_k, all_v)
    shapes = [(batch, queries[index], count * width) for count in per_process]
    return torch.cat(exchange.swap(out.split(queries, dim=1), shapes), dim=2)


@dataclass(frozen=True)
class SequenceMMDiT:
    """Called as `MMDiT` is, by all processes of a group with the same inputs; the first one gets the velocity."""

    mmdit: MMDiT
    exchange: Exchange

    def __call__(
        self, latent: Tensor, t: Tensor, context: Sequence[Tensor], references: Sequence[Tensor], cache: StepCache
    ) -> Tensor | None:
        network, blocks, index = self.mmdit, self.mmdit.double_blocks, self.exchange.place.index
        network._check(latent, t, context, references)
        running = cache.references(references)
        img, txt, time, whole = network.embed(latent, t, context, running, network.attention, cache)
        parts = Shares.of(whole, img.shape[1], sum(map(self._tokens, references)), self.exchange.place.count)
        middle, end = (SequencePacking(whole, parts, self.exchange, last) for last in (False, True))
        kept = cache.keeping(len(blocks), middle.targets, len(running), img.dtype)
        last = len(blocks) - 1

        def run(i: int, img: Tensor, txt: Tensor) -> Streams:
            if i == last:
                return blocks[i](img, txt, time, end, end.targets, kept[i])
            return blocks[i](img, txt, time, middle, None, kept[i])

        img, txt = parts.image(img, index), parts.text(txt, index)  # nothing holds on to all tokens
        out = cache.through(last + 1, run, img, txt, middle.targets)
        out = self._gathered(out, parts.targets)
        return None if out is None else network.project(out, latent)

    def _tokens(self, reference: Tensor) -> int:
        _, ph, pw = self.mmdit.config.patch_size
        return -(-reference.shape[3] // ph) * -(-reference.shape[4] // pw)

    def _gathered(self, out: Tensor, targets: list[int]) -> Tensor | None:
        """The target's tokens (B, its part, D) of all processes, at the first."""
        place, (batch, _, width) = self.exchange.place, out.shape
        pieces = [out, *(out[:, :0] for _ in range(place.count - 1))]
        shapes = [(batch, tokens if place.first else 0, width) for tokens in targets]
        parts = self.exchange.swap(pieces, shapes)
        return torch.cat(parts, dim=1) if place.first else None
