"""What a worker makes of rows, on the bundled model: each result is that of a single run, whatever is beside it."""

from __future__ import annotations

import errno
import json
import os
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import joyimage
from joyimage import JoyImage, JoyImageError, spatial
from joyimage.demo import ASSETS
from joyimage.images import read_parameters, save_png
from joyimage.scale import making as making_file
from joyimage.scale.batch import tasks
from joyimage.scale.engine import Stopped
from joyimage.scale.jobs import read_jobs
from joyimage.scale.limits import Limits
from joyimage.scale.making import Maker
from joyimage.scale.noting import Noting
from joyimage.scale.results import Making, OtherSettings

PICTURE = str(ASSETS / "rotate.png")
OTHER = str(ASSETS / "move.png")
TEXTS = ("Remove the purple car.", "Make it night and add a large red sphere to the left.", "Turn it blue.")


@pytest.fixture(scope="module")
def model() -> JoyImage:
    return JoyImage.load("tiny", device="cpu")


@pytest.fixture
def maker(model, tmp_path, monkeypatch) -> Maker:
    monkeypatch.chdir(tmp_path)
    return Maker(Making(lambda: model, tmp_path / "out"), model, "here")


def made(maker: Maker, *rows: dict, steps: int = 3) -> list:
    """The records of rows, by their numbers."""
    Path("jobs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    jobs = tasks("jobs.jsonl", bytearray(len(rows) + 1), {"steps": steps}, maker.making.batch)
    return sorted((record for task in jobs for record in maker(task)), key=lambda record: record.row)


def pixels(maker: Maker, record) -> bytes:
    assert record.status == "done", record.reason
    return Image.open(maker.making.folder / record.output).tobytes()


def test_rows_that_share_a_picture_equal_single_edits_to_the_byte(model, maker):
    rows = [{"images": PICTURE, "instruction": text, "seed": i} for i, text in enumerate(TEXTS)]
    for record, row in zip(made(maker, *rows), rows, strict=True):
        (alone,) = model.edit(PICTURE, row["instruction"], seed=row["seed"], steps=3)
        assert pixels(maker, record) == alone.tobytes()


def test_a_shared_picture_is_encoded_once(maker, monkeypatch):
    seen = {"vision": 0, "vae": 0}

    def counted(name: str, function):
        def call(*args, **options):
            seen[name] += 1
            return function(*args, **options)

        return call

    tower = maker.model.encoder.backbone.visual
    monkeypatch.setattr(tower, "forward", counted("vision", tower.forward))
    monkeypatch.setattr(maker.model.vae, "encode", counted("vae", maker.model.vae.encode))
    shared = ({"images": PICTURE, "instruction": text} for text in TEXTS)
    records = made(maker, *shared, {"images": OTHER, "instruction": "x"})
    assert [record.status for record in records] == ["done"] * 4
    assert seen == {"vision": 2, "vae": 2}


@pytest.mark.slow
def test_every_kind_of_row_equals_its_call(model, maker):
    mask, box = Image.new("L", Image.open(PICTURE).size), [4, 4, 40, 40]
    mask.paste(255, (10, 10, 50, 50))
    mask.save("mask.png")
    options = {"negative_prompt": "blur", "guidance_scale": 2.5, "solver": "heun"}
    move = spatial.draw_box(PICTURE, box), spatial.move_object("car")
    edit = {"images": PICTURE, "instruction": TEXTS[0]}
    rows = {  # by name: the row, then the call's pictures, words and options
        "plain": ({**edit, **options, "size": "64x80"}, PICTURE, TEXTS[0], {**options, "size": (64, 80)}),
        "several": ({**edit, "images": [PICTURE, OTHER]}, [PICTURE, OTHER], TEXTS[0], {}),
        "text": ({"prompt": "A red cube.", "seed": 4}, None, "A red cube.", {"seed": 4}),
        "equal": ({**edit, "negative_prompt": TEXTS[0]}, PICTURE, TEXTS[0], {"negative_prompt": TEXTS[0]}),
        "move": ({"images": PICTURE, "move": "car", "box": box}, *move, {}),
        "mask": ({**edit, "mask": "mask.png"}, PICTURE, TEXTS[0], {"mask": "mask.png"}),
        "described": ({"images": PICTURE, "outpaint": [16, 0, 0, 0]}, PICTURE, None, {"outpaint": [16, 0, 0, 0]}),
        "weak": ({**edit, "strength": 0.5}, PICTURE, TEXTS[0], {"strength": 0.5}),
        "fast": ({**edit, "preset": "fast"}, PICTURE, TEXTS[0], {"preset": "fast"}),
        "chosen": ({**edit, "candidates": 2}, PICTURE, TEXTS[0], {"candidates": 2}),
    }
    records = made(maker, *({**row, "name": name} for name, (row, *_) in rows.items()))
    for record, (_, pictures, words, options) in zip(records, rows.values(), strict=True):
        call = model.generate(words, steps=3, **options) if pictures is None else None
        (alone,) = call or model.edit(pictures, words, steps=3, **options)
        assert pixels(maker, record) == alone.tobytes(), record.name


@pytest.mark.slow
def test_an_object_moves_to_a_place_in_words_and_the_picture_tells_the_box(model, maker):
    (record,) = made(maker, {"images": OTHER, "move": "red sphere", "to": "to the left"})
    box = model.place(OTHER, "red sphere", "to the left")
    (alone,) = model.edit(spatial.draw_box(OTHER, box), spatial.move_object("red sphere"), steps=3)
    assert pixels(maker, record) == alone.tobytes()
    assert read_parameters(maker.making.folder / record.output)["box"] == list(box)


def test_an_answer_is_that_of_asking(model, maker):
    row = {"images": PICTURE, "question": "What is it?", "max_new_tokens": 8, "seed": 3}
    (record,) = made(maker, row)
    assert record.answer == model.ask(PICTURE, "What is it?", max_new_tokens=8, seed=3)
    assert (record.status, record.output) == ("done", "") and record.sample_seconds > 0


@pytest.mark.slow
def test_a_picture_tells_how_it_was_made_as_that_of_the_command_does(maker, capsys):
    from joyimage.cli import main

    (record,) = made(maker, {"images": PICTURE, "instruction": TEXTS[0], "seed": 7, "forecast": 2})
    main(["edit", PICTURE, TEXTS[0], "--seed", "7", "--forecast", "2", "--steps", "3", "-o", "single.png", "--quiet"])
    told, single = read_parameters(maker.making.folder / record.output), read_parameters("single.png")
    batch = told.pop("batch")
    assert told == single
    assert (batch["row"], batch["fingerprint"], batch["worker"]) == (1, record.fingerprint, "here")
    assert Image.open("single.png").tobytes() == pixels(maker, record)


@pytest.mark.slow
def test_rows_that_share_a_forward_are_within_a_level(model, maker):
    maker.making = replace(maker.making, batch=4)
    rows = [{"images": PICTURE, "instruction": text, "seed": i} for i, text in enumerate((*TEXTS, "Turn it red.", "x"))]
    rows.append({"images": OTHER, "instruction": "x", "seed": 9})
    seen = []
    maker.model.mmdit.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
    for record, row in zip(made(maker, *rows), rows, strict=True):
        (alone,) = model.edit(row["images"], row["instruction"], seed=row["seed"], steps=3)
        difference = np.frombuffer(pixels(maker, record), np.uint8).astype(int) - np.asarray(alone).ravel()
        assert abs(difference).max() <= 1
    assert max(seen) >= 4
    maker.model.mmdit._forward_hooks.clear()


def test_one_row_that_fails_takes_none_with_it(maker):
    box, far = [4, 4, 40, 40], [4, 4, 4000, 40]
    Path("broken.png").write_bytes(b"\x89PNG no more")
    rows = [
        {"images": PICTURE, "instruction": TEXTS[0]},
        {"images": PICTURE, "move": "car", "box": far},
        {"images": PICTURE, "move": "car", "box": box},
        {"images": "broken.png", "instruction": TEXTS[0]},
        {"images": "broken.png", "instruction": TEXTS[1]},
        {"images": [PICTURE, OTHER], "instruction": "x", "strength": 0.5, "size": "64x80"},
    ]
    records = made(maker, *rows)
    assert [record.status for record in records] == ["done", "failed", "done", "failed", "failed", "failed"]
    assert "reaches outside the picture" in records[1].reason
    assert all("broken.png is not a picture" in records[i].reason for i in (3, 4))
    assert not records[1].output and len(list(maker.making.folder.rglob("*.png"))) == 2


@pytest.mark.slow
def test_one_of_those_that_share_encodings_fails_alone(maker, monkeypatch):
    sample = maker.model.sample

    def failing(conditionings, seeds, **options):
        if 13 in seeds:
            raise RuntimeError("out of luck")
        return sample(conditionings, seeds, **options)

    monkeypatch.setattr(maker.model, "sample", failing, raising=False)
    rows = [{"images": PICTURE, "instruction": "x", "seed": seed, "steps": 1} for seed in (11, 12, 13, 14)]
    for batch in (1, 4):
        maker.making = replace(maker.making, batch=batch, folder=maker.making.folder.with_name(f"out{batch}"))
        records = made(maker, *rows)
        assert [record.status for record in records] == ["done", "done", "failed", "done"]
        assert records[2].reason == "RuntimeError: out of luck"


def test_what_is_there_is_not_made_again(maker):
    row = {"images": PICTURE, "instruction": TEXTS[0], "steps": 1}
    (first,) = made(maker, row)
    path = maker.making.folder / first.output
    before = path.stat().st_mtime_ns
    (again,) = made(maker, row)
    assert path.stat().st_mtime_ns == before and again == first


def test_a_result_of_other_settings_stays_unless_it_is_to_be_redone(maker):
    row = {"images": PICTURE, "instruction": TEXTS[0], "steps": 1}
    (first,) = made(maker, row)
    kept = pixels(maker, first)
    (refused,) = made(maker, {**row, "steps": 2})
    assert refused.status == "failed" and "was made with steps 1, not 2" in refused.reason
    assert pixels(maker, first) == kept
    maker.making = replace(maker.making, redo=True)
    (redone,) = made(maker, {**row, "steps": 2})
    assert pixels(maker, redone) != kept
    assert read_parameters(maker.making.folder / redone.output)["steps"] == 2


def test_another_programs_picture_is_not_replaced(maker):
    (maker.making.folder / "a").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(maker.making.folder / "a/b.png")
    row = {"images": PICTURE, "instruction": "x", "steps": 1, "name": "a/b"}
    for redo in (False, True):
        maker.making = replace(maker.making, redo=redo)
        (record,) = made(maker, row)
        assert record.status == "failed" and "move it away" in record.reason
    assert Image.open(maker.making.folder / "a/b.png").size == (8, 8)


def test_of_two_that_make_the_same_row_one_writes(maker, monkeypatch):
    """As where a worker that was taken for lost goes on."""
    row = {"images": PICTURE, "instruction": "x", "steps": 1}
    maker_there = Maker._there
    monkeypatch.setattr(Maker, "_there", lambda self, job: None)
    (first,) = made(maker, row)
    written = (maker.making.folder / first.output).stat().st_mtime_ns
    (second,) = made(maker, row)
    monkeypatch.setattr(Maker, "_there", maker_there)
    assert (second.status, second.fingerprint) == ("done", first.fingerprint)
    assert (maker.making.folder / first.output).stat().st_mtime_ns == written


def test_a_full_disk_ends_the_run(maker, monkeypatch):
    def full(*_args, **_options):
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise JoyImageError(f"cannot write x.png: {error.strerror}") from error

    monkeypatch.setattr(making_file, "save_png", full)
    with pytest.raises(Stopped, match="No space left on device: nothing more can be written"):
        made(maker, {"images": PICTURE, "instruction": "x", "steps": 1})


def test_what_the_library_warns_of_stands_beside_the_row(maker):
    near, plain = "Rotate the car to show the left view", "Turn it blue."
    records = made(maker, *({"images": PICTURE, "instruction": text, "steps": 1} for text in (near, plain)))
    assert "close to a spatial instruction" in records[0].note and records[1].note == ""


def test_a_folder_that_is_another_on_this_machine_is_told(maker, tmp_path):
    making = replace(maker.making, run="1")
    with pytest.raises(JoyImageError, match="is not the folder of this command"):
        making()
    (making.folder / ".batch").mkdir(parents=True)
    (making.folder / ".batch/run").write_text("2", encoding="utf-8")
    with pytest.raises(JoyImageError, match="give one that all machines share"):
        making()
    (making.folder / ".batch/run").write_text("1", encoding="utf-8")
    assert making().model is maker.model


def test_a_picture_from_elsewhere_with_parameters_is_of_other_settings(maker):
    (job,) = _jobs({"images": PICTURE, "instruction": "x", "name": "a"})
    maker.making.folder.mkdir()
    save_png(Image.new("RGB", (8, 8)), maker.making.folder / "a.png", {"prompt": "y", "seed": 0})
    with pytest.raises(OtherSettings, match="was made with prompt 'y', not 'x'"):
        maker.making.found(job)


def _jobs(*rows: dict) -> list:
    Path("jobs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return list(read_jobs("jobs.jsonl"))


def test_pictures_that_keep_sizes_beyond_the_limit_fail_before_any_work(maker, monkeypatch):
    maker.making = replace(maker.making, limits=Limits(max_pixels=64 * 64))
    Image.new("RGB", (80, 64)).save("wide.png")
    Image.new("RGB", (64, 64)).save("small.png")
    rows = [
        {"images": "wide.png", "instruction": "x", "exact": True},
        {"images": ["wide.png", "small.png"], "instruction": "x", "exact": True, "candidates": 2},
        {"images": "small.png", "instruction": "x", "exact": True, "outpaint": [0, 0, 0, 9]},
    ]
    with monkeypatch.context() as patch:
        patch.setattr(maker.model, "condition", None, raising=False)
        patch.setattr(maker.model, "edit", None, raising=False)
        told = [record.reason for record in made(maker, *rows)]
    assert "64 x 80 (height x width): 5,120 are more than the 4,096 of --max-pixels" in told[0]
    assert "64 x 80" in told[1] and "73 x 64" in told[2]
    small = {"images": "small.png", "instruction": "x", "exact": True, "steps": 1}
    fitted = {**small, "images": "wide.png", "size": "64x64"}
    assert [record.status for record in made(maker, {**small, "name": "a"}, {**fitted, "name": "b"})] == ["done"] * 2


def test_seconds_are_shares_of_what_rows_took_together(maker):
    records = made(maker, *({"images": PICTURE, "instruction": text, "steps": 1} for text in TEXTS))
    assert len({record.encode_seconds for record in records}) == 1
    assert all(min(r.encode_seconds, r.sample_seconds, r.decode_seconds) > 0 for r in records)


def test_what_the_library_warns_of_is_noted_once_and_what_others_do_is_not():
    ours = str(Path(joyimage.__file__).parent / "any.py")
    with Noting() as noted:
        for text, place in [("cut", ours), ("of others", __file__), ("cut", ours), ("small", ours)]:
            warnings.warn_explicit(text, UserWarning, place, 1)
    assert noted.text("a red cube") == "cut; small"
    with Noting(shared=True) as noted:
        warnings.warn_explicit("cut", UserWarning, ours, 1)
    assert noted.text("a red cube") == "of this, or of what was made with it: cut"
