"""From token ids to contexts: what the last layer of the decoder says about each token of a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .chat import Chat, packed_mask, pairs
from .vision import NOTHING, VisionInputs

if TYPE_CHECKING:
    from transformers import DynamicCache, Qwen3VLModel


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads prompts with a model that works on `device`."""

    backbone: Qwen3VLModel
    chat: Chat
    device: torch.device

    def contexts(self, prompts: Sequence[str], vision: VisionInputs) -> list[Tensor]:
        """The context of each prompt, (L_i, D).

        With images and several prompts, the vision tower and the tokens up to the end of the last image run once;
        the prompts then run packed over the KV cache of that prefix, two at a time. A positive and a negative prompt
        take about half the time of two passes this way, and differ from them by 5e-6. More at once would save time
        where reading the weights costs most, but an edit's last digits would hang on which others are beside it.
        """
        from transformers import DynamicCache

        shared_ids, prefix = self.chat.shared_ids(vision.grids), self.chat.prefix_length
        rows = [self.chat.prompt_ids(prompt, shared_ids) for prompt in prompts]
        if not shared_ids or len(rows) == 1:
            return [hidden[prefix:] for pack in pairs(rows) for hidden in self.hidden(pack, vision)]

        cache = DynamicCache(config=self.backbone.language_model.config)
        (shared,) = self.hidden([shared_ids], vision, cache=cache)
        start = int(self.chat.positions(shared_ids, vision.grids).max()) + 1
        contexts = []
        for pack in pairs([row[len(shared_ids) :] for row in rows]):
            for hidden in self.hidden(pack, start=start, cache=cache):
                contexts.append(torch.cat([shared[prefix:], hidden]))
            cache.crop(-sum(map(len, pack)))
        return contexts

    def hidden(
        self,
        rows: Sequence[list[int]],
        vision: VisionInputs = NOTHING,
        start: int = 0,
        cache: DynamicCache | None = None,
    ) -> list[Tensor]:
        """What the last decoder layer gives before the final norm, (T_i, D) for each of `rows`, run as one sequence.

        Each row follows what `cache` holds, at position `start`, and does not see the others.
        """
        decoder, lengths = self.backbone.language_model, [len(row) for row in rows]
        past = 0 if cache is None else cache.get_seq_length()
        order = torch.arange(past, past + sum(lengths))[None]  # (1, T)
        positions = torch.cat([self.chat.positions(row, vision.grids, start) for row in rows], dim=1)  # (3, T)
        if past == 0 and len(rows) == 1:
            # All ones is recognised as plain causal and costs no mask; None makes transformers 4 build one.
            mask = torch.ones(1, lengths[0], dtype=torch.long, device=self.device)
        else:
            mask = packed_mask(past, lengths, decoder.norm.weight.dtype, self.device)  # norms are never quantised
        outputs = []
        hook = decoder.layers[-1].register_forward_hook(lambda _module, _args, output: outputs.append(output))
        try:
            self.backbone(  # by place: the cache is called `past_key_values` in some versions, `cache` in others
                torch.tensor([[token for row in rows for token in row]], device=self.device),
                mask,
                torch.cat([order, positions])[:, None].to(self.device),  # (4, 1, T): order, t, h, w
                cache,
                use_cache=cache is not None,
                **vision.tensors,
            )
        finally:
            hook.remove()
        return list(outputs[0][0].split(lengths))
