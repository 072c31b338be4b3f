"""The benchmark of memory budgets, at a size for a CPU."""

from __future__ import annotations

import pytest
import torch

from joyimage.config import MMDiTConfig
from tools.bench import budgets

CONFIG = MMDiTConfig(hidden_size=32, num_heads=2, num_layers=4, text_dim=32, mlp_size=64, rope_dims=(4, 6, 6))


@pytest.mark.parametrize("form", budgets.FORMATS)
def test_each_budget_has_a_row(form):
    model = budgets.random_mmdit(CONFIG, budgets.FORMATS[form])
    part = budgets.measure("mmdit", model, {"blocks": model.double_blocks})
    item = budgets.itemsize(model)
    least = part.least + budgets.mmdit_activations(CONFIG, 37, item) + budgets.unpacking(model, item)
    size = part.groups[0].blocks[0]
    rows = budgets.run(CONFIG, form, [least, least + 2 * size], torch.device("cpu"), latent=8, text_tokens=(5, 4))
    assert [(row.resident, row.streamed, row.peak) for row in rows] == [(4, 0, None), (0, 4 * size, None)]
    assert all(row.expected <= row.budget and row.seconds > 0 for row in rows)
    assert budgets.table(rows, 4).splitlines()[2].startswith("bfloat16" if form == "whole" else form)
