"""Formats of spatial data sets: written, read back to the same, and read by those for whom they are written."""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas
import pyarrow.parquet
import pytest
import webdataset
from PIL import Image

from joyimage.cli import main
from joyimage.errors import JoyImageError
from joyimage.evaluation.choices import read_questions
from joyimage.spatialdata.records import CHOICE, OPEN, Pair, Picture, Sample, Shown, Turn, encoded
from joyimage.spatialdata.writers import FORMATS, tars
from joyimage.spatialdata.writers.tars import PairWriter
from joyimage.training.layouts import read as read_examples

SHOWN = Shown("000", (96, 64), (90.0, 90.5, 48.0, 32.0))
CHOOSING = Turn(
    task="proximity",
    form=CHOICE,
    language="en",
    text='Is "it" near?\nTabs\tstay, too.\nA. next to\nB. far\nAnswer with the letter.',
    stem='Is "it" near?\nTabs\tstay, too.',
    answer="B",
    options=("next to", "far"),
    sides=(("letter of 2", 1), ("side of 2", 0)),
)
TELLING = Turn("height", OPEN, "zh", "“红色”物体有多高？", "1.00 米", "“红色”物体有多高？")


def picture(name: str, kind: str = "png") -> Picture:
    noise = np.random.default_rng(len(name) + sum(name.encode())).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    suffix = {"png": ".png", "jpeg": ".jpg"}[kind]
    return Picture(f"{name}{suffix}", encoded(Image.fromarray(noise), kind))


def sample(number: int, names: tuple[str, ...] = ("0000000/a",), turns: tuple[Turn, ...] = (CHOOSING,)) -> Sample:
    pictures = tuple(map(picture, names))
    return Sample(f"0000000-{number:04d}", "a scene", "scannet", pictures, (SHOWN,) * len(names), turns)


def written(format: str, folder, samples, size: int = 10**9):
    writer = FORMATS[format].open(folder, size)
    for each in samples:
        writer.add(each)
    writer.close()
    return folder


def same(found: Sample, wanted: Sample) -> bool:
    """Equal in all, pictures by their bytes."""
    contents = [[(each.name, each.content) for each in one.pictures] for one in (found, wanted)]
    return contents[0] == contents[1] and replace(found, pictures=()) == replace(wanted, pictures=())


SAMPLES = [
    sample(0),
    sample(1, ("0000000/a", "0000000/b")),
    sample(2),
    sample(3, ("0000000/c",), (TELLING,)),
    sample(4, ("0000000/c",), (TELLING, replace(TELLING, text="又多高？", stem="又多高？"))),
]


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_what_is_written_is_read_back(tmp_path, format):
    found = list(FORMATS[format].read(written(format, tmp_path, SAMPLES)))
    assert len(found) == len(SAMPLES)
    assert all(map(same, found, SAMPLES))


def test_a_table_of_choices_is_read_back(tmp_path):
    found = list(FORMATS["tsv"].read(written("tsv", tmp_path, SAMPLES[:3])))
    wanted = [replace(each, turns=(replace(CHOOSING, text=CHOOSING.stem),)) for each in SAMPLES[:3]]
    assert len(found) == 3 and all(map(same, found, wanted))


@pytest.mark.parametrize("format", FORMATS)
def test_no_samples_are_a_set_of_none(tmp_path, format):
    assert list(FORMATS[format].read(written(format, tmp_path, []))) == []


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_samples_are_the_same_bytes(tmp_path, format):
    trees = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        folder = written(format, tmp_path / name, SAMPLES[:3])
        trees.append({path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()})
    assert trees[0] == trees[1]


def test_lines_are_conversations_with_pictures_beside_them(tmp_path):
    folder = written("jsonl", tmp_path, SAMPLES)
    lines = [json.loads(line) for line in (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["conversations"][0]["value"] for line in lines[:2]] == [
        f"<image>\n{CHOOSING.text}",
        f"<image>\n<image>\n{CHOOSING.text}",
    ]
    dialogue = lines[4]
    assert [turn["from"] for turn in dialogue["conversations"]] == ["human", "gpt"] * 2
    assert "<image>" not in dialogue["conversations"][2]["value"]
    assert (dialogue["task"], dialogue["type"], lines[0]["type"]) == ("height", "open", "choice")
    for line in lines:
        assert line["conversations"][0]["value"].count("<image>") == len(line["images"])
        for name in line["images"]:
            assert Image.open(folder / name).size == (96, 64)
    assert len(list((folder / "images").rglob("*.png"))) == 3  # of which samples share two


def test_parquet_has_openspatials_columns(tmp_path):
    folder = written("parquet", tmp_path, SAMPLES)
    table = pyarrow.parquet.read_table(folder / "questions-00000.parquet")
    assert table.column_names == ["conversations", "id", "data_source", "images", "type", "meta_info"]
    rows = pandas.read_parquet(folder / "questions-00000.parquet")
    assert list(rows["data_source"]) == ["scannet"] * 5 and rows["id"].is_unique
    for row, wanted in zip(rows.to_dict("records"), SAMPLES, strict=True):
        assert json.loads(row["meta_info"])["task"] == wanted.task
        for image, own in zip(row["images"], wanted.pictures, strict=True):
            assert np.array_equal(Image.open(io.BytesIO(image["bytes"])), own.image()) and image["path"] == own.name
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert list(features) == table.column_names and features["images"]["feature"] == {"_type": "Image"}


def test_hugging_faces_reader_decodes_the_pictures(tmp_path):
    datasets = pytest.importorskip("datasets")
    folder = written("parquet", tmp_path, SAMPLES)
    rows = datasets.load_dataset(
        "parquet", data_files=str(folder / "*.parquet"), split="train", cache_dir=str(tmp_path / "cache")
    )
    for row, wanted in zip(rows, SAMPLES, strict=True):
        assert row["conversations"][1] == {"from": "gpt", "value": wanted.turns[0].answer}
        assert all(map(np.array_equal, row["images"], (own.image() for own in wanted.pictures)))


def test_parquet_goes_on_in_another_file(tmp_path):
    each = len(SAMPLES[0].pictures[0].content)
    samples = [sample(i, (f"0000000/{i}",)) for i in range(7)]
    folder = written("parquet", tmp_path, samples, size=3 * each - 1000)
    files = sorted(folder.glob("*.parquet"))
    assert [pyarrow.parquet.read_metadata(path).num_rows for path in files] == [3, 3, 1]
    assert all(map(same, FORMATS["parquet"].read(folder), samples))


def test_a_table_of_choices_is_what_our_benchmark_takes(tmp_path):
    found = read_questions(written("tsv", tmp_path, SAMPLES[:3]) / "questions.tsv")
    assert [(each.index, each.answer) for each in found] == [("0", "B"), ("1", "B"), ("2", "B")]
    for each, wanted in zip(found, SAMPLES, strict=False):
        assert each.question == CHOOSING.stem and list(each.options.values()) == ["next to", "far"]
        assert each.groups == {"category": "proximity", "l2-category": "spatial relationship"}
        assert all(map(np.array_equal, each.images(), (own.image() for own in wanted.pictures)))


def test_a_picture_stands_once_in_a_table(tmp_path):
    folder = written("tsv", tmp_path, [SAMPLES[0], SAMPLES[2], sample(5, ("0000000/c",)), SAMPLES[2]])
    rows = pandas.read_csv(folder / "questions.tsv", sep="\t", dtype=str)  # as VLMEvalKit reads it
    assert [len(image) > 64 for image in rows["image"]] == [True, False, True, False]
    assert rows["image"][1] == rows["image"][3] == rows["index"][0] == "0"
    assert list(rows["question"]) == [CHOOSING.stem] * 4


def pair(number: int, kind: str, text: str = "Move the red cube.", pictures: str = "jpeg") -> Pair:
    source, target = picture(f"{kind}{number}", pictures), picture(f"{kind}{number}'", pictures)
    box = (3, 4, 20, 30) if kind == "move" else None
    return Pair(f"{number:07d}-{kind}-0000", kind, "a scene", text, source, target, ("000", "001"), box)


def written_pairs(folder, pairs, size: int = 10**9):
    writer = PairWriter(folder, size)
    for each in pairs:
        writer.add(each)
    writer.close()
    return folder


PAIRS = [pair(0, "move"), pair(1, "camera", "Move the camera.\n- Zoom: in."), pair(2, "move"), pair(3, "rotate")]


def test_pairs_are_read_back(tmp_path):
    found = sorted(tars.read(written_pairs(tmp_path, PAIRS)), key=lambda each: each.id)
    for each, wanted in zip(found, PAIRS, strict=True):
        contents = [(own.content for own in one.pictures) for one in (each, wanted)]
        assert list(contents[0]) == list(contents[1])
        own = {"source": wanted.source, "target": wanted.target}
        assert replace(each, **own) == wanted


@pytest.mark.parametrize("pictures", ["jpeg", "png"])
def test_pairs_are_what_training_and_webdataset_read(tmp_path, pictures):
    pairs = [pair(i, "move", f"Move it {i}.", pictures) for i in range(3)]
    folder = written_pairs(tmp_path, pairs)
    examples = read_examples(folder)
    assert [example.caption for example in examples] == [each.text for each in pairs]
    for example, wanted in zip(examples, pairs, strict=True):
        for member, own in zip((*example.controls, example.target), wanted.pictures, strict=True):
            assert member.read() == own.content
    suffix = pairs[0].source.suffix.lstrip(".")
    stream = webdataset.WebDataset(str(folder / "edits" / "move" / "00000.tar"), shardshuffle=False).decode("rgb8")
    for item, wanted in zip(stream, pairs, strict=True):
        assert item["__key__"] == wanted.id and item["json"]["conversations"][0]["value"].endswith(wanted.text)
        assert np.array_equal(item[f"0.{suffix}"], wanted.source.image())
        assert np.array_equal(item[f"1.{suffix}"], wanted.target.image())


def test_tars_are_of_bounded_size_and_equal_bytes(tmp_path):
    pairs = [pair(i, "move") for i in range(9)]
    each = sum(len(own.content) for own in pairs[0].pictures)
    trees = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        folder = written_pairs(tmp_path / name, pairs, size=2 * each) / "edits" / "move"
        trees.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert trees[0] == trees[1] and len(trees[0]) == 5
    counts = Counter(len(read_examples(tmp_path / "first" / "edits" / "move" / name)) for name in trees[0])
    assert counts == {2: 4, 1: 1}


def test_the_command_to_train_takes_the_folder(tmp_path, capsys):
    written("jsonl", tmp_path, SAMPLES)
    written_pairs(tmp_path, PAIRS)
    assert main(["train", str(tmp_path), "--dry-run", "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["set"]["examples"] == 4


@pytest.mark.parametrize(
    ("format", "file"),
    [("jsonl", "questions.jsonl"), ("parquet", "questions-00000.parquet"), ("tsv", "questions.tsv")],
)
def test_damaged_files_are_named(tmp_path, format, file):
    path = written(format, tmp_path, SAMPLES[:3]) / file
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(JoyImageError, match=file):
        list(FORMATS[format].read(tmp_path))


def test_a_damaged_tar_is_named(tmp_path):
    path = written_pairs(tmp_path, PAIRS) / "edits" / "move" / "00000.tar"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(JoyImageError, match=r"00000\.tar"):
        list(tars.read(tmp_path))


def test_what_a_picture_is_encoded_as():
    noise = np.zeros((40, 40, 3), np.uint8)
    noise[10:12] = (255, 0, 0)  # a thin red line, which JPEG's usual loss of colour would turn brown
    drawn = Image.fromarray(noise)
    assert np.array_equal(Image.open(io.BytesIO(encoded(drawn, "png"))), noise)
    line = np.asarray(Image.open(io.BytesIO(encoded(drawn, "jpeg"))))[10:12].astype(int)
    assert (line[..., 0] >= 225).all() and (line[..., 1:] <= 60).all()
