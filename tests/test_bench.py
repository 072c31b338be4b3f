"""The benchmark's own arithmetic and its way through the columns, at a size for a test; diffusers beside it."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from joyimage.config import MMDiTConfig
from joyimage.settings import ATTENTIONS, PRESETS, Sampling
from tools.bench import columns, networks, plot, predictions, tf32
from tools.bench.cases import CASES, CPU, FORMER_TEXT, STEP, operations
from tools.bench.columns import BASE, COLUMNS, RUN, Size
from tools.bench.count import ATTENTION, Count, forward
from tools.quantise import QUANTISERS

CONFIG = MMDiTConfig(hidden_size=64, num_heads=2, num_layers=3, text_dim=64, mlp_size=128, rope_dims=(8, 12, 12))
SIZE = Size("cpu", torch.float32, CONFIG, latent=8, steps=6, repeats=1)


def test_operations_are_those_counted():
    """Of the published size, within what is no block: embedders, first and last layer."""
    counted = sum(forward(1, [1324]).flops.values())
    assert 1 <= counted / operations(MMDiTConfig(), 4096, 4096, 1324) < 1.002


def test_the_step_has_a_real_conditions_text_and_the_former_one_stays():
    texts = {case.name: case.sides["ours"].keywords["text"] for case in CASES if "step" in case.name}
    assert texts == {STEP: (1324, 1314), "former step": FORMER_TEXT}


def test_every_option_has_a_column():
    assert {column.form for column in COLUMNS} == {None, *QUANTISERS}
    assert {column.attention for column in COLUMNS} == set(ATTENTIONS)
    shortcuts = {name for column in COLUMNS for name in column.settings}
    assert {"forecast", "guidance_every", "reference_every", "block_cache", "preset"} <= shortcuts
    assert len({column.name for column in COLUMNS}) == len(COLUMNS)


@pytest.mark.parametrize("form", QUANTISERS)
def test_quantised_rows_are_repeated_whole(form):
    torch.manual_seed(0)
    weight = torch.randn(networks.ROWS, 256).repeat(2, 1)
    made = networks.quantised(weight, form)
    assert made.shape == (512, 256)
    assert torch.equal(made.dense(torch.float32), QUANTISERS[form](weight).dense(torch.float32))


def test_columns_are_measured_or_say_why_not():
    names = ("int8", "attention cudnn", "preset fast", "Q8_0, 8bit products")
    chosen = [BASE, RUN, *(column for column in COLUMNS if column.name in names)]
    results = {result["column"]: result for result in columns.measure(SIZE, 1, chosen)}
    for exact in (BASE, RUN):
        assert (results[exact.name]["ratio"], results[exact.name]["forwards"]) == (1, 2)
    assert results["int8"]["seconds"] > 0 and results["int8"]["format"] == "int8"
    assert 0 < results["preset fast"]["forwards"] < 2
    assert "cpu" in results["attention cudnn"]["refused"]
    assert "exact" in results["Q8_0, 8bit products"]["refused"]
    lines = list(columns.rows(list(results.values())))
    assert len(lines) == 7 and sum("not here" in line for line in lines) == 2


def test_predictions_are_of_columns_and_in_order():
    found = {p.column: p.seconds for p in predictions.predict("H100")}
    assert set(found) <= {column.name for column in COLUMNS}
    assert found["compiled"] < found["eager"] < found["attention flash"]
    beside = predictions.beside([{"column": "eager", "seconds": 1.0}], "NVIDIA H200")
    assert beside[0]["measured"] == 1.0 and predictions.beside([], "Some other card") == []


def test_predictions_are_the_sums_that_they_say():
    """One forward with 148.2 TFLOP of products, 55.8 of attention and 150.7 GB outside: 344 ms and so on."""
    count = Count({"mm": 148.2e12, ATTENTION: 55.8e12}, {"add": 150.7e9}, {})
    found = {p.column: round(1000 * p.seconds) for p in predictions.predict("H100", {1100: count})}
    assert (found["eager"], found["attention flash"], found["compiled"]) == (343, 419, 316)
    assert found["float8_e4m3fn, 8bit products, compiled"] == 235


def test_preset_saves_what_is_predicted():
    """Of a whole edit's forwards."""
    settings = Sampling(preset="fast")
    assert dataclasses.asdict(settings) | PRESETS["fast"] == dataclasses.asdict(settings)
    renderer = columns.renderer_of(columns.random_mmdit(CONFIG, None, torch.float32))
    made = columns.forwards(renderer, columns.conditioning(SIZE), settings)
    assert made / 80 == pytest.approx(predictions.SAVED, abs=0.02)


def test_tf32_changes_nothing_on_a_processor():
    machine = dataclasses.replace(CPU, image=32)
    found = tf32.compare(machine, 1)
    assert (found["latent"], found["levels"]) == (0, 0)


def test_plots_hold_each_row():
    picture = plot.bars("<title>", [("a & b", 2.0, "1.00"), ("c", 1.0, "0.50")])
    assert picture.count("<rect") == 3 and "a &amp; b" in picture and "&lt;title&gt;" in picture
    assert 'width="400.0"' in picture and 'width="200.0"' in picture
