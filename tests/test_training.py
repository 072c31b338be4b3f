"""Whole runs of training: checkpoints, what a killed run gives, what is written, what is refused."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from trained import Samples, network, sample, samples

from joyimage.errors import CheckpointError, JoyImageError
from joyimage.training import checkpoints, logs
from joyimage.training.batches import shapes_of
from joyimage.training.settings import Training
from joyimage.training.sheets import Preview, sheet
from joyimage.training.teacher import alike
from joyimage.training.trainer import Progress, Run, nullcontext, train

SHORT = Training(steps=6, batch_size=2, learning_rate=1e-2, warm_up=2, rank=2, save_every=2, sample_every=0)
SCRIPT = Path(__file__).with_name("trained.py")


@contextmanager
def run(mmdit, data, folder, settings: Training, room=nullcontext, **changes) -> Iterator[Run]:
    """A run before its first step."""
    folder.mkdir(parents=True, exist_ok=True)
    work = Run(mmdit, data, replace(settings, **changes), folder, torch.device("cpu"), room)
    try:
        yield work
    finally:
        work.close()


def losses(folder: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in logs.read(folder) if "loss" in line]


def same(one, other) -> bool:
    a, b = one.comfy(), other.comfy()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Stop(Exception):
    pass


def stopping_at(step: int):
    def tell(progress: Progress) -> None:
        if progress.step == step:
            raise Stop

    return tell


# -- runs that stop ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"optimizer": "muon", "adapter": "dora"}, {"ema": 0.9, "accumulation": 2}])
def test_a_run_that_is_interrupted_goes_on_to_the_bit(tmp_path, changes):
    """In a step with no checkpoint of its own: the interrupt writes one."""
    settings = replace(SHORT, **changes)
    whole = train(network(), samples(), settings, tmp_path / "whole")
    with pytest.raises(Stop):
        train(network(), samples(), settings, tmp_path / "parts", callback=stopping_at(3))
    assert checkpoints.saved(tmp_path / "parts")[-1].name == "step-0000003.pt"
    assert same(train(network(), samples(), settings, tmp_path / "parts"), whole)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole") and len(losses(tmp_path / "whole")) == 6


@pytest.mark.slow
def test_a_run_that_is_killed_at_a_random_moment_gives_the_same_curve_and_file(tmp_path):
    def start(folder: Path) -> subprocess.Popen:
        folder.mkdir(exist_ok=True)
        return subprocess.Popen([sys.executable, SCRIPT, folder], cwd=SCRIPT.parents[1], env=environment())

    assert start(tmp_path / "whole").wait() == 0
    killed = tmp_path / "killed"
    for moment in sorted(random.Random().sample(range(1, 55), 2)):
        process = start(killed)
        while process.poll() is None and (killed / logs.FILE).exists() * len(losses(killed)) < moment:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert start(killed).wait() == 0
    for name in (logs.FILE, "lora.safetensors"):
        assert (killed / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not list(killed.glob(".joyimage-*"))


def environment() -> dict[str, str]:
    import os

    root = SCRIPT.parents[1]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")]), "OMP_NUM_THREADS": "1"}


def test_ctrl_c_ends_after_the_step_with_a_checkpoint(tmp_path):
    def press(progress: Progress) -> None:
        if progress.step == 3:
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(network(), samples(), SHORT, tmp_path, callback=press)
    assert signal.getsignal(signal.SIGINT) is before
    assert checkpoints.saved(tmp_path)[-1].name == "step-0000003.pt"


def test_a_longer_run_goes_on_from_a_shorter_one(tmp_path):
    whole = train(network(), samples(), SHORT, tmp_path / "whole")
    train(network(), samples(), replace(SHORT, steps=4), tmp_path / "longer")
    assert same(train(network(), samples(), SHORT, tmp_path / "longer"), replace(whole, settings=SHORT))


def test_checkpoints_are_few(tmp_path):
    train(network(), samples(), replace(SHORT, keep=2), tmp_path)
    assert [path.name for path in checkpoints.saved(tmp_path)] == ["step-0000004.pt", "step-0000006.pt"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"rank": 3}, "rank 2, now 3"), ({"learning_rate": 1e-3}, "learning_rate"), ({"steps": 4}, "6 steps already")],
)
def test_another_runs_folder_is_refused(tmp_path, changes, message):
    train(network(), samples(), SHORT, tmp_path)
    with pytest.raises(JoyImageError, match=message):
        train(network(), samples(), replace(SHORT, **changes), tmp_path)


def test_other_data_or_another_base_is_refused(tmp_path):
    train(network(), samples(), SHORT, tmp_path)
    other = samples()
    other.key = "others"
    with pytest.raises(JoyImageError, match="other data"):
        train(network(), other, SHORT, tmp_path)
    base = network()
    base.proj_out.weight.data += 1
    with pytest.raises(JoyImageError, match="another base model"):
        train(base, samples(), SHORT, tmp_path)


def test_a_damaged_checkpoint_is_named(tmp_path):
    train(network(), samples(), SHORT, tmp_path)
    path = checkpoints.saved(tmp_path)[-1]
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"step-0000006\.pt: is damaged"):
        train(network(), samples(), SHORT, tmp_path)
    path.unlink()
    assert same(train(network(), samples(), SHORT, tmp_path), train(network(), samples(), SHORT, tmp_path / "new"))


def test_a_disk_without_room_for_a_checkpoint_is_refused_before_the_first_step(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=2**20))
    with pytest.raises(JoyImageError, match="make room"):
        train(network(), samples(), SHORT, tmp_path)
    assert not losses(tmp_path)


def test_a_checkpoint_that_does_not_fit_on_the_disk_is_no_fault_of_torch(tmp_path):
    resource = pytest.importorskip("resource")  # Windows has none
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    began = train(network(), samples(), SHORT, tmp_path / "whole")
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limit[1]))
    try:
        with pytest.raises((JoyImageError, OSError), match=r"disk full|File too large"):
            train(network(), samples(), SHORT, tmp_path / "small")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert same(train(network(), samples(), SHORT, tmp_path / "small"), began)


@pytest.mark.parametrize(
    "change",
    [
        lambda states: states.pop(),
        lambda states: states[0]["param_groups"][0]["params"].pop(),
        lambda states: states[0]["state"][0].update(exp_avg=torch.zeros(3, 3)),
    ],
)
def test_an_optimisers_state_that_does_not_fit_is_named(tmp_path, change):
    train(network(), samples(), SHORT, tmp_path)
    path = checkpoints.saved(tmp_path)[-1]
    held = torch.load(path, weights_only=True)
    change(held["engines"])
    torch.save(held, path)
    with pytest.raises(CheckpointError, match=r"step-0000006\.pt: the optimiser's state is .*; remove it, and the run"):
        train(network(), samples(), replace(SHORT, steps=8), tmp_path)
    path.unlink()
    train(network(), samples(), replace(SHORT, steps=8), tmp_path)


def test_a_run_that_is_done_makes_nothing_anew(tmp_path):
    settings = replace(SHORT, objective="guidance", teacher_steps=2, sample_every=6)
    preview = Preview(lambda: [Image.new("RGB", (8, 8))])
    whole = train(network(), samples(), settings, tmp_path, preview=preview)

    def refuse(*_: object) -> list[Image.Image]:
        raise AssertionError("something was made")

    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.suffix in (".png", ".safetensors")}
    again = train(network(), samples(), settings, tmp_path, preview=Preview(refuse), callback=refuse)
    assert same(again, whole)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept and len(kept) == 2


def test_what_comes_after_a_damaged_line_of_the_log_is_not_read(tmp_path):
    (tmp_path / logs.FILE).write_bytes(b'{"step": 1, "loss": 2.0}\n5\n{"step": 2}\n\xff\n')
    assert logs.read(tmp_path) == [{"step": 1, "loss": 2.0}]


def test_two_runs_in_one_folder_are_one_too_many(tmp_path):
    def second(progress):
        train(network(), samples(), SHORT, tmp_path)

    with pytest.raises(JoyImageError, match="another run is at work there"):
        train(network(), samples(), SHORT, tmp_path, callback=second)
    train(network(), samples(), SHORT, tmp_path)


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_checkpoint(tmp_path):
    data = samples(1)
    good = train(network(), data, replace(SHORT, steps=4), tmp_path)
    broken = Samples([replace(data[0], context=torch.full_like(data[0].context, float("nan")))])
    with pytest.raises(JoyImageError, match="broke down in step 5: the loss is nan"):
        train(network(), broken, SHORT, tmp_path)
    assert checkpoints.saved(tmp_path)[-1].name == "step-0000004.pt"
    assert same(train(network(), data, replace(SHORT, steps=4), tmp_path), good)


# -- the model that is trained ----------------------------------------------------------------------------------------


def velocity(mmdit) -> torch.Tensor:
    one = sample(0)
    with torch.inference_mode():
        return mmdit(one.latent[None], torch.tensor([400.0]), one.context[None], [r[None] for r in one.references])


def test_the_model_is_as_it_was_after_a_run_and_after_one_that_failed(tmp_path):
    mmdit = network()
    before, keys = velocity(mmdit), set(mmdit.state_dict())
    train(mmdit, samples(), SHORT, tmp_path / "a")
    assert torch.equal(velocity(mmdit), before)
    with pytest.raises(Stop):
        train(mmdit, samples(), SHORT, tmp_path / "b", callback=stopping_at(1))
    assert torch.equal(velocity(mmdit), before) and set(mmdit.state_dict()) == keys
    assert not mmdit.training and not any(p.requires_grad for p in mmdit.parameters())


def test_a_model_is_not_trained_twice_at_once(tmp_path):
    mmdit = network()
    with (
        run(mmdit, samples(), tmp_path, SHORT),
        pytest.raises(JoyImageError, match="being trained already"),
    ):
        train(mmdit, samples(), SHORT, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize(("objective", "rate", "left"), [("edit", 2e-2, 0.97), ("guidance", 5e-3, 0.6)])
def test_it_lowers_the_loss_at_noise_that_it_has_not_seen(tmp_path, objective, rate, left, optimizer):
    """Of steps that never come. A network that was drawn and not trained can't tell noise well, but itself guided."""
    settings = replace(
        SHORT, objective=objective, guidance_scale=3.0, teacher_steps=2, steps=60, rank=8, alpha=8.0,
        optimizer=optimizer, learning_rate=rate, save_every=0,
    )  # fmt: skip
    with run(network(), samples(1), tmp_path, settings) as work:
        work.start(None, None)
        unseen = range(1000, 1010)
        before = sum(map(work.gradients, unseen))
        work.loop(None)
        assert sum(map(work.gradients, unseen)) < left * before


def test_damaged_pictures_of_the_teacher_are_named(tmp_path):
    settings = replace(SHORT, objective="guidance", teacher_steps=2, steps=2)
    train(network(), samples(), settings, tmp_path)
    (path,) = tmp_path.glob("teacher-*/*")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(JoyImageError, match=r"teacher-\w+\.safetensors: is damaged"):
        train(network(), samples(), replace(settings, steps=3), tmp_path)
    path.unlink()
    train(network(), samples(), replace(settings, steps=3), tmp_path)


def test_the_teachers_pictures_are_made_once(tmp_path):
    settings = replace(SHORT, objective="guidance", teacher_steps=2, steps=2)
    whole = train(network(), samples(), settings, tmp_path)
    (folder,) = tmp_path.glob("teacher-*")
    kept = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    longer = train(network(), samples(), replace(settings, steps=3), tmp_path)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == kept
    again = train(network(), samples(), replace(settings, steps=3), tmp_path / "again")
    assert same(longer, again) and not same(longer, whole)


def test_the_teachers_pictures_are_kept_up_to_an_interrupt(tmp_path):
    """Those that are missing are made as they would have been."""
    settings = replace(SHORT, objective="guidance", teacher_steps=2, steps=2)
    whole = train(network(), samples(), settings, tmp_path / "whole")
    made: list[int] = []

    def stop(progress: Progress) -> None:
        made.append(progress.step)
        if len(made) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(network(), samples(), settings, tmp_path / "parts", callback=stop)
    rest: list[Progress] = []
    assert same(train(network(), samples(), settings, tmp_path / "parts", callback=rest.append), whole)
    told = [progress for progress in rest if progress.stage == "teacher"]
    assert made[1] < told[0].step and told[-1].step == told[-1].steps == len(samples())
    batches = list(alike(range(len(samples())), shapes_of(samples()), settings.batch_size))
    assert len(made) + len(told) == len(batches) > 2


# -- what is written --------------------------------------------------------------------------------------------------


def test_the_file_says_where_it_comes_from(tmp_path):
    file = train(network(), samples(), SHORT, tmp_path, notes={"base": "drawn", "command": "train it"})
    with safe_open(file.save(tmp_path / "lora.safetensors"), "pt") as saved:
        told = saved.metadata()
    expected = {"base": "drawn", "command": "train it", "data": "drawn", "steps": "6", "rank": "2", "alpha": "16.0"}
    assert expected.items() <= told.items()
    assert json.loads(told["settings"])["learning_rate"] == 1e-2


def test_progress_counts_down(tmp_path):
    told: list[Progress] = []
    train(network(), samples(), SHORT, tmp_path, callback=told.append)
    assert [progress.step for progress in told] == list(range(1, 7))
    assert told[-1].seconds_left == 0 and all(progress.loss > 0 and progress.norm > 0 for progress in told)
    assert [progress.rate for progress in told][:3] == [0.005, 0.01, 0.01]


def test_sheets_show_before_and_after(tmp_path):
    mmdit = network()
    seen = []

    def make() -> list[Image.Image]:
        assert not mmdit.training
        seen.append(velocity(mmdit))
        return [Image.new("RGB", (64, 32), "green")]

    given = [[Image.new("RGB", (32, 64), "red")]]
    train(mmdit, samples(), replace(SHORT, sample_every=3), tmp_path, preview=Preview(make, given))
    sheets = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert sheets == ["step-0000003.png", "step-0000006.png"]
    assert torch.equal(seen[0], velocity(mmdit)) and not torch.equal(seen[1], seen[0])
    shown = Image.open(tmp_path / "samples" / sheets[0]).convert("RGB")
    colours = {shown.getpixel((x, 60)) for x in range(shown.width)}
    assert {(255, 0, 0), (0, 128, 0)} <= colours
    lines = [line for line in logs.read(tmp_path) if "sample" in line]
    assert [(line["step"], line["sample"]) for line in lines] == [
        (3, f"samples/{sheets[0]}"),
        (6, f"samples/{sheets[1]}"),
    ]


def test_a_sheet_needs_pictures():
    with pytest.raises(JoyImageError, match="no pictures"):
        sheet({"before": []})


def test_sheets_change_nothing_in_what_is_learned(tmp_path):
    plain = train(network(), samples(), SHORT, tmp_path / "plain")

    def make() -> list[Image.Image]:
        torch.randn(5)
        return [Image.new("RGB", (8, 8))]

    watched = train(network(), samples(), replace(SHORT, sample_every=1), tmp_path / "b", preview=Preview(make))
    assert same(watched, plain)
