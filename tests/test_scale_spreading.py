"""Data sets and benchmarks on Ray's workers: what one process makes, to the byte."""

from __future__ import annotations

import os
import signal
from functools import cache, partial
from pathlib import Path

import pytest
from PIL import Image
from ray_here import ray_folder

from joyimage import JoyImageError
from joyimage.cli import main
from joyimage.evaluation import longtext
from joyimage.evaluation.longtext import Prompt
from joyimage.evaluation.predicting import Wanted, make_all
from joyimage.evaluation.settings import Sampled
from joyimage.scale.loading import Loading
from joyimage.scale.settings import Pool
from joyimage.scale.spreading import in_order, pictures, scenes
from joyimage.spatialdata import Making, make
from tools.tiny import captures

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:a worker was lost")]
FEW = Making(tasks=("depth_order", "counting"), quota=2, views=3)
POOL = Pool(workers=2, gpus_per_worker=0)


@pytest.fixture(scope="module", autouse=True)
def folder_of_ray():
    with ray_folder():
        yield


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_results_come_in_order():
    early = in_order(iter([(1, "b"), (0, "a"), (3, "d"), (2, "c")]))
    assert list(early) == ["a", "b", "c", "d"]


def test_a_data_set_is_the_same_on_workers(tmp_path):
    captures.make(tmp_path / "scenes", 4, seed=5, size=96)
    (tmp_path / "scenes" / "scene00002" / "transforms.json").write_text("{")
    alone = make(tmp_path / "scenes", tmp_path / "alone", FEW)
    spread = make(tmp_path / "scenes", tmp_path / "spread", FEW, spread=scenes(POOL))
    assert spread == alone and [name for name, _ in spread.failed] == ["scene00002"]
    assert files(tmp_path / "spread") == files(tmp_path / "alone")


def test_pictures_of_a_benchmark_are_the_same_on_workers(tmp_path):
    prompts = [Prompt(1, "A red cube.", ("cube",)), Prompt(2, "A blue cone.", ("cone",))]
    wanted = partial(longtext.wanted, prompts, settings=Sampled(2, 1.0, repeats=2), told={"model": "tiny"})
    load = Loading().load
    assert make_all(wanted(tmp_path / "alone"), cache(load)) == 4
    spread = pictures(POOL, load)
    assert make_all(wanted(tmp_path / "spread"), lambda: pytest.fail("loaded here"), spread=spread) == 4
    assert files(tmp_path / "spread") == files(tmp_path / "alone") and len(files(tmp_path / "alone")) == 4
    assert make_all(wanted(tmp_path / "spread"), load, spread=spread) == 0


def picture(_model) -> Image.Image:
    return Image.new("RGB", (16, 16))


def refused(_model) -> Image.Image:
    raise JoyImageError("its source is damaged")


def deadly(folder: Path, _model) -> Image.Image:
    """The first worker that makes it dies."""
    if not (folder / "begun").exists():
        (folder / "begun").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return Image.new("RGB", (16, 16))


def no_model() -> None:
    """What these pictures need."""


def test_a_lost_worker_costs_no_picture_and_a_fault_ends_the_run(tmp_path):
    first = [Wanted(tmp_path / f"{n}.png", {}, picture) for n in range(3)]
    dying = Wanted(tmp_path / "dying.png", {}, partial(deadly, tmp_path))
    assert make_all([*first, dying], no_model, spread=pictures(POOL, no_model)) == 4
    assert all(each.path.is_file() for each in (*first, dying))
    with pytest.raises(JoyImageError, match=r"bad\.png: its source is damaged"):
        make_all([Wanted(tmp_path / "bad.png", {}, refused)], no_model, spread=pictures(POOL, no_model))


def test_a_command_names_what_workers_cannot_be_given(tmp_path, capsys):
    command = ["evaluate", "longtext", str(tmp_path), "-o", str(tmp_path / "out"), "--workers", "2"]
    assert main([*command, "--guidance-devices", "cpu,cpu"]) == 2
    assert "workers have a device each: leave out --guidance-devices" in capsys.readouterr().err
