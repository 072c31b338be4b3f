"""Training sets in each layout, and the check of their pictures."""

from __future__ import annotations

import json
import sys
import tarfile
from pathlib import Path

import pytest
import training_sets as sets
from PIL import Image

from joyimage.conditioning import fit
from joyimage.errors import JoyImageError, MissingFileError
from joyimage.training import pictures
from joyimage.training.checking import check
from joyimage.training.examples import Example
from joyimage.training.fitting import fitting_sizes
from joyimage.training.layouts import read

# -- layouts ----------------------------------------------------------------------------------------------------------


def looks_like(picture, wanted: Image.Image) -> bool:
    """At two places, within what JPEG changes."""
    image = pictures.load(picture)
    return all(
        abs(a - b) <= 12
        for place in ((4, 4), (48, 48))
        for a, b in zip(image.getpixel(place), wanted.getpixel(place), strict=True)
    )


@pytest.mark.parametrize(("make", "controls"), sets.LAYOUTS.values(), ids=sets.LAYOUTS)
def test_each_layout_gives_its_pairs(make, controls, tmp_path):
    examples = read(make(tmp_path / "set"))
    assert [example.caption for example in examples] == list(sets.CAPTIONS)
    assert [len(example.controls) for example in examples] == list(controls)
    for i, example in enumerate(examples):
        assert looks_like(example.target, sets.target(i))
        assert all(looks_like(control, sets.source(i)) for control in example.controls)
    assert len(check(examples, 64).examples) == len(examples)


@pytest.mark.parametrize("count", range(7))
def test_folders_of_controls_go_together_by_name(count, tmp_path):
    root = sets.folders(tmp_path, count)
    examples = read(root / "targets", [root / f"control{k}" for k in range(count)])
    assert [example.target.stem for example in examples] == ["0", "1", "2"]
    for example in examples:
        assert [control.parent.name for control in example.controls] == [f"control{k}" for k in range(count)]
        assert {control.stem for control in example.controls} <= {example.target.stem}


def test_a_number_that_belongs_to_a_target_counts_no_control(tmp_path):
    for folder in ("targets", "control"):
        (tmp_path / folder).mkdir()
        for name in ("a", "a_0"):
            sets.source(0).save(tmp_path / folder / f"{name}.png")
    examples = read(tmp_path / "targets", [tmp_path / "control"])
    assert [[control.name for control in example.controls] for example in examples] == [["a.png"], ["a_0.png"]]


def test_captions_can_have_another_suffix_or_be_one_for_all(tmp_path):
    root = sets.folders(tmp_path)
    (root / "targets" / "0.caption").write_text("\ufeffIn another file.", encoding="utf-8")
    found = read(root / "targets", caption_extension="caption", default_caption="For all.")
    assert [example.caption for example in found] == ["In another file.", "For all.", "For all."]


def test_masks_go_together_by_name_and_may_be_missing(tmp_path):
    root = sets.folders(tmp_path)
    (root / "masks").mkdir()
    Image.new("L", (64, 64), 255).save(root / "masks" / "1.png")
    found = read(root / "targets", [root / "control0"], root / "masks")
    assert [example.mask and example.mask.name for example in found] == [None, "1.png", None]


def test_two_files_for_one_control_are_refused(tmp_path):
    root = sets.folders(tmp_path)
    sets.source(0).save(root / "control0" / "0.png")
    with pytest.raises(JoyImageError, match=r"control0: 0\.png and 0\.webp have one name without suffix"):
        read(root / "targets", [root / "control0"])


def test_two_targets_of_one_name_are_refused(tmp_path):
    root = sets.folders(tmp_path)
    sets.target(1).save(root / "targets" / "0.jpg")
    with pytest.raises(JoyImageError, match=r"targets: 0\.jpg and 0\.png have one name without suffix"):
        read(root / "targets", [root / "control0"])


def test_an_accent_is_the_same_in_one_character_and_in_two(tmp_path):
    for folder, name in (("targets", "caf\u00e9"), ("control", "cafe\u0301"), ("masks", "cafe\u0301")):
        (tmp_path / folder).mkdir()
        sets.source(0).save(tmp_path / folder / f"{name}.png")
    (found,) = read(tmp_path / "targets", [tmp_path / "control"], tmp_path / "masks", default_caption="x")
    assert found.controls[0].is_file()
    assert found.mask and found.mask.is_file()


def test_paths_in_a_file_begin_where_it_is_said(tmp_path, monkeypatch):
    table = sets.musubi_lines(tmp_path / "set")
    moved = table.rename(tmp_path / "moved.jsonl")
    assert [example.caption for example in read(moved, base=tmp_path / "set")] == list(sets.CAPTIONS)
    monkeypatch.chdir(tmp_path / "set")  # musubi-tuner's own rule
    assert len(check(read(moved), 64).examples) == 3


def test_numbered_folders_of_ai_toolkits_window(tmp_path):
    file = sets.ai_toolkit(tmp_path)
    lines = file.read_text().splitlines()[:6]
    file.write_text("\n".join([*lines, "          control_path_1: control1", "          control_path_2: control0"]))
    assert [control.parent.name for control in read(file)[0].controls] == ["control1", "control0"]


def test_repeats_that_differ_are_said_not_to_count(tmp_path):
    sets.folders(tmp_path)
    file = tmp_path / "set.toml"
    file.write_text("[[directory]]\npath = 'targets'\nnum_repeats = 2\n[[directory]]\npath = 'control0'\n")
    with pytest.warns(UserWarning, match="num_repeats is not read"):
        assert len(read(file)) == 6


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("set.parquet", "PAR1", "no training set of a known form; looked for a folder of pictures"),
        ("set.toml", "[dataset]\npath = 'targets'\n", r"looked for \[\[datasets\]\] with image_directory"),
        ("set.toml", "[[datasets]]\nvideo_directory = 'v'\n", "looked for image_directory or image_jsonl_file"),
        ("set.toml", "[[datasets", "is no TOML"),
        ("set.yaml", "config:\n  process: 3\n", "looked for config: process: datasets: with folder_path"),
        ("set.yaml", "a: [", "is no YAML"),
        ("set.jsonl", '{"image_path": "a.png"}\n{"image_path": ', "line 2: is no JSON"),
        ("set.jsonl", '{"video_path": "a.mp4"}', "looked for image_path or image, found video_path"),
        ("set.jsonl", '{"image_path": "a.png", "control_path": 3}', "give a path or a list of paths"),
        ("set.jsonl", '{"image_path": "a.png", "caption": ["a"]}', "which is no text"),
        ("set.jsonl", '{"image_path": "a.png", "mask": 3}', "row 1: its mask is 3 and no path"),
        ("set.toml", "general = 3\n[[datasets]]\nimage_directory = 'a'\n", "general is 3 and no table"),
        ("set.toml", "[[datasets]]\nimage_directory = 'a'\ncaption_extension = 3\n", "caption_extension is 3"),
        ("set.toml", "[[datasets]]\nimage_jsonl_file = 'a.jsonl'\n", r"image_jsonl_file is .*a\.jsonl, which does not"),
        ("set.toml", "[[directory]]\npath = 'a'\nnum_repeats = [1]\n", "the folder .*a does not exist"),
        ("set.yaml", "a: 2020-13-45", "is no YAML"),
        ("set.yaml", "[" * 5000, "is no YAML"),
        ("set.json", '{"image": "a.png"}', "holds no list of examples"),
        ("set.csv", "image,prompt\n", "holds no examples"),
        ("set.csv", 'image,prompt\na.png,"open\na.png,close\n', "up to line 3: unexpected end of data"),
        ("set.csv", 'image,prompt\na.png,"open\na.png,"close" it\n', "up to line 3: ',' expected after"),
        ("set.csv", "image,prompt,image\na.png,b,c.png\n", "the column 'image' is there more than once"),
        ("set.csv", "picture,prompt\na.png,b\n", "row 2: names no picture to learn; .* found picture, prompt"),
        ("set.csv", 'image,edit_image\na.png,"[""b"""\n', "edit_image: is no JSON"),
        ("set.tar", "no tar", "is damaged, or no uncompressed tar"),
    ],
)  # fmt: skip
def test_what_is_no_training_set_is_refused_by_what_was_looked_for(name, text, said, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(JoyImageError, match=said):
        read(tmp_path / name)


def test_a_name_that_no_file_can_have_is_reported_with_the_others(tmp_path):
    table = sets.musubi_lines(tmp_path)
    with table.open("a") as file:
        file.write(json.dumps({"image_path": "a" * 300 + ".png", "caption": "x"}) + "\n")
    checked = check(read(table), 64)
    assert (len(checked.examples), len(checked.unusable)) == (3, 1)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("set.jsonl", '{"image": "a.png", "edit_images": ["b.png"]}', "row 1: edit_images is not read, and edit_image"),
        ("set.jsonl", '{"image": "a.png", "Prompt": "x"}', "Prompt is not read, and prompt would be"),
        ("set.jsonl", '{"image": "a.png", "reference": "b.PNG"}', "reference names pictures .* one of image_path,"),
        ("set.json", '[{"image": "a.png", "sources": ["b.png"]}]', "row 1: sources names pictures and is not read"),
        ("set.csv", 'image,before\na.png,"[""b.png""]"\n', "row 2: before names pictures and is not read"),
        ("set.csv", "image,prompt\na.png,melt the cup, please\n", "row 2: has more cells than there are columns"),
        ("set.toml", "[[datasets]]\nimage_directory = 't'\ncontrol_directories = 't'\n",
         "data set 1: control_directories is not read, and control_directory would be"),
        ("set.toml", "[[directory]]\npath = 't'\ncontrols = 'targets'\n", "controls names pictures and is not read"),
        ("set.yaml", "config: {process: [{datasets: [{folder_path: t, control_pth: t}]}]}", "control_pth is not read"),
    ],
)  # fmt: skip
def test_a_key_that_is_misspelt_or_of_pictures_is_refused(name, text, said, tmp_path):
    sets.folders(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(JoyImageError, match=said):
        read(tmp_path / name)


def test_other_keys_are_passed_over(tmp_path):
    sets.folders(tmp_path)
    table = tmp_path / "set.jsonl"
    table.write_text('{"image": "a.png", "prompt_id": 3, "caption_en": "x", "width": 64, "source": "a museum"}')
    assert len(read(table)) == 1
    file = tmp_path / "set.toml"
    rest = "batch_size = 2\nresolution = [64, 64]\ncache_directory = 'targets'\nvideo_directory = 'videos'\n"
    file.write_text(f"[[datasets]]\nimage_directory = 'targets'\ncontrol_directory = 'control0'\n{rest}")
    assert [len(example.controls) for example in read(file)] == [1, 1, 1]


def test_what_is_not_there_is_missing(tmp_path):
    sets.folders(tmp_path)
    with pytest.raises(MissingFileError, match="nowhere does not exist"):
        read(tmp_path / "nowhere")
    with pytest.raises(MissingFileError, match="nowhere does not exist"):
        read(tmp_path / "targets", [tmp_path / "nowhere"])
    with pytest.raises(JoyImageError, match="holds no pictures and no training set"):
        read(tmp_path)


def test_a_file_takes_no_folders_beside_it(tmp_path):
    file = sets.diffusion_pipe(tmp_path)
    with pytest.raises(JoyImageError, match="a file names its own pictures"):
        read(file, [tmp_path / "control0"])


def test_tars_need_webdataset(tmp_path, monkeypatch):
    sets.tars(tmp_path)
    monkeypatch.setitem(sys.modules, "webdataset.tariterators", None)
    with pytest.raises(JoyImageError, match=r'pip install "joyimage\[train\]"'):
        read(tmp_path)


def test_a_tar_without_examples_is_refused(tmp_path):
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("0.txt"))
    with pytest.raises(JoyImageError, match=r"holds no examples; looked for stem\.json"):
        read(tmp_path / "set.tar")


# -- the check --------------------------------------------------------------------------------------------------------


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def noisy(path: Path) -> None:
    Image.effect_noise((64, 64), 90).convert("RGB").save(path)


def beside(example: Example, **changes) -> Example:
    return Example(**{**example.__dict__, **changes})


FAULTS = {
    "cut off": (lambda e: (noisy(e.target), cut_off(e.target)), "cannot read .*1.png"),
    "no picture": (lambda e: e.target.write_text("text"), "1.png is not a picture"),
    "gone": (lambda e: e.controls[0].unlink(), "1.webp does not exist"),
    "a folder": (lambda e: (e.target.unlink(), e.target.mkdir()), "cannot read .*1.png"),
    "too small": (lambda e: sets.source(1, 24).save(e.target), "is too small: 24 x 24 .* would be enlarged 2.7 times"),
    "a strip": (lambda e: Image.new("RGB", (9999, 40)).save(e.target), "is too narrow"),
}


@pytest.mark.parametrize(("spoil", "said"), FAULTS.values(), ids=FAULTS)
def test_a_picture_that_cannot_be_used_is_named_and_the_others_go_on(spoil, said, tmp_path):
    root = sets.folders(tmp_path)
    examples = read(root / "targets", [root / "control0"])
    spoil(examples[1])
    checked = check(examples, 64)
    assert [example.target.name for example in checked.examples] == ["0.png", "2.png"]
    assert checked.unusable[0].example is examples[1]
    report = str(checked)
    assert "2 of 3 examples can be used" in report
    with pytest.raises(JoyImageError, match=said):
        check(examples[1:2], 64)


CHANGES = {
    "no caption": ({"caption": ""}, "target", "has no caption: neither a text, such as 1.txt"),
    "a caption of spaces": ({"caption": " \n"}, "target", "has no caption"),
    "no UTF-8": ({"caption": "caf\udce9"}, "target", "its caption holds"),
    "no mask": ({}, "mask", "has no mask"),
    "nothing to differ from": ({"controls": ()}, "difference", "has no control, from which the target could differ"),
}


@pytest.mark.parametrize(("changes", "loss", "said"), CHANGES.values(), ids=CHANGES)
def test_an_example_that_says_too_little_is_refused(changes, loss, said, tmp_path):
    root = sets.folders(tmp_path)
    (root / "targets" / "1.txt").unlink()
    example = read(root / "targets", [root / "control0"], default_caption="Do it.")[1]
    with pytest.raises(JoyImageError, match=said):
        check([beside(example, **changes)], 64, loss=loss)


def test_an_empty_caption_file_is_named(tmp_path):
    root = sets.folders(tmp_path)
    (root / "targets" / "0.txt").write_text(" \n")
    checked = check(read(root / "targets"), 64)
    assert str(checked.unusable[0]).endswith("0.png: its caption 0.txt is empty")


def test_more_than_six_controls_are_refused(tmp_path):
    root = sets.folders(tmp_path)
    example = read(root / "targets", [root / "control0"] * 7)[0]
    with pytest.raises(JoyImageError, match="has 7 controls; the model takes at most 6"):
        check([example], 64)


def test_a_caption_in_bytes_that_are_no_utf_8_is_reported(tmp_path):
    root = sets.folders(tmp_path)
    (root / "targets" / "0.txt").write_bytes("café".encode("latin-1"))
    checked = check(read(root / "targets"), 64)
    assert len(checked.examples) == 2
    assert "another encoding than UTF-8" in checked.unusable[0].reason


@pytest.mark.parametrize(("mask", "said"), [("black", "black all over"), ("long", "of another shape")])
def test_masks_that_cannot_be_used_are_refused(mask, said, tmp_path):
    root = sets.folders(tmp_path)
    image = Image.new("L", (64, 64) if mask == "black" else (64, 32), 0 if mask == "black" else 255)
    image.save(tmp_path / "mask.png")
    example = beside(read(root / "targets", [root / "control0"])[0], mask=tmp_path / "mask.png")
    with pytest.raises(JoyImageError, match=said):
        check([example], 64, loss="mask")
    assert check([example], 64).examples  # without that loss it is not looked at


def test_what_comes_twice_is_used_once(tmp_path):
    root = sets.folders(tmp_path)
    first = read(root / "targets", [root / "control0"])[0]
    again = tmp_path / "copy.png"
    again.write_bytes(first.target.read_bytes())
    checked = check([first, beside(first, target=again), beside(first, caption="Another.")], 64)
    assert len(checked.examples) == 2
    assert f"is the same as {first.target}" in checked.unusable[0].reason


def test_controls_of_another_shape_are_counted(tmp_path):
    wide = Image.new("RGB", (512, 256))
    checked = check([Example(Image.new("RGB", (256, 256)), "Crop.", (wide,)), Example(wide, "As it is.", (wide,))], 256)
    assert checked.cropped == 1
    assert checked.sizes == (((256, 256), (256, 256)), ((176, 352), (176, 352)))
    assert "1 have a control of another shape" in str(checked)


def test_a_damaged_tar_loses_what_is_damaged_alone(tmp_path):
    sets.tars(tmp_path)
    examples = read(tmp_path / "0.tar")
    with (tmp_path / "0.tar").open("r+b") as file:
        file.truncate(examples[1].target.offset + 100)
    checked = check(examples, 64)
    assert [example.caption for example in checked.examples] == [sets.CAPTIONS[0]]
    assert "the tar is cut off" in checked.unusable[0].reason


def test_the_report_is_plain_json(tmp_path):
    root = sets.folders(tmp_path)
    (root / "targets" / "1.png").write_text("text")
    told = json.loads(json.dumps(check(read(root / "targets"), 64).as_dict()))
    assert told["examples"] == 2
    assert told["buckets"] == [{"sizes": [[64, 64]], "examples": 2}]
    assert told["unusable"][0]["example"].endswith("1.png")


def test_a_check_can_be_cancelled(tmp_path):
    class Cancelled(Exception):
        pass

    def stop(what: str, done: int, total: int) -> None:
        if (what, done, total) == ("checked", 1, 3):
            raise Cancelled

    with pytest.raises(Cancelled):
        check(read(sets.folders(tmp_path) / "targets"), 64, progress=stop)


# -- pictures and sizes -----------------------------------------------------------------------------------------------


def test_a_size_is_that_of_the_upright_picture(tmp_path):
    exif = Image.Exif()
    exif[pictures.ORIENTATION] = 6
    Image.new("RGB", (80, 40)).save(tmp_path / "lying.jpg", exif=exif)
    loaded = pictures.load(tmp_path / "lying.jpg")
    assert pictures.size_of(tmp_path / "lying.jpg") == (loaded.height, loaded.width) == (80, 40)


def test_a_digest_tells_pictures_apart_wherever_they_are(tmp_path):
    root = sets.folders(tmp_path / "a")
    sets.tars(tmp_path / "b")
    members = [example.target for example in read(tmp_path / "b")]
    images = [sets.target(i) for i in range(3)]
    found = [pictures.digest(each) for each in (*(e.target for e in read(root / "targets")), *members, *images)]
    assert len(set(found)) == 9
    assert pictures.digest(sets.target(1)) == pictures.digest(sets.target(1))


@pytest.mark.parametrize("base_size", [None, 64, 256, 1024])
@pytest.mark.parametrize("controls", [[], [(300, 500)], [(300, 500), (400, 400), (1000, 250)]])
def test_sizes_are_those_of_an_edit(base_size, controls):
    pictured = [Image.new("RGB", (width, height)) for height, width in controls]
    target, *others = fitting_sizes((300, 500), controls, base_size)
    fitted, size = fit(pictured, target, base_size)
    assert [(image.height, image.width) for image in fitted] == others
    assert size == target
    if len(pictured) == 1:  # of the target's shape: what `edit` takes by itself
        assert fit(pictured, None, base_size)[1] == target
