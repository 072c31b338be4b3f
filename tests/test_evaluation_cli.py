"""`joyimage evaluate`, through its own entry point, on the bundled model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import drawn_bench
import pytest
from PIL import Image
from test_evaluation_choices import row, table

from joyimage.cli import main
from joyimage.evaluation.layout import META
from joyimage.images import read_parameters, save_png

TOOLS = """
from tools.tiny.bench import detect, locate
from joyimage.settings import VIEWS

def view(picture, obj):
    return VIEWS[0]

def poses(pictures):
    return None

def judge(attempt):
    return 0.25

def reader(picture):
    return "open today"
"""
FAST = ["--quiet", "--device", "cpu"]
OWN_TOOLS = ["--locate", "mine.py:locate", "--detect", "mine.py:detect", "--view", "mine.py:view"]
NO_MODEL = [*OWN_TOOLS, "--poses", "mine.py:poses", "--only-score", *FAST]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("JOYIMAGE_MODEL", "JOYIMAGE_JUDGE", "JOYIMAGE_REWRITE_URL", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "mine.py").write_text(TOOLS)
    shutil.copytree(drawn_bench.made()[0], tmp_path / "bench")
    return tmp_path


@pytest.fixture
def no_model(monkeypatch):
    monkeypatch.setattr("joyimage.cli.evaluation.load_model", lambda options: pytest.fail("a model was loaded"))


def evaluate(*words: str) -> int:
    return main(["evaluate", *words])


@pytest.mark.usefixtures("no_model")
def test_predictions_are_scored_without_a_model(folder, capsys):
    drawn_bench.perfect(folder / "out")
    assert evaluate("spatialedit", "bench", "-o", "out", "--judge", "mine.py:judge", *NO_MODEL, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["figures"]["camera"]["fe"] == 0 and told["figures"]["camera"]["without_ve"] == 2
    assert told["figures"]["move"]["consistency"] == 0.25
    report = json.loads((folder / told["report"]).read_text(encoding="utf-8"))
    assert report["tools"]["detect"] == "mine.py:detect" and report["tools"]["judge"] == "mine.py:judge"
    assert report["settings"] == {} and report["pictures_without_settings"] == 6  # they are another program's
    assert "model" not in report
    assert (folder / told["page"]).stat().st_size > 10_000


@pytest.mark.usefixtures("no_model")
def test_missing_predictions_are_said(folder, capsys):
    for words in ([], ["--json"]):
        assert evaluate("spatialedit", f"bench/{META}", "-o", "out", "--limit", "4", *NO_MODEL, *words) == 0
        assert "note: 4 of 4 pictures are missing" in capsys.readouterr().err


@pytest.mark.usefixtures("no_model")
def test_a_report_says_what_pictures_tell_of_themselves(folder, capsys):
    told = {"steps": 8, "guidance_scale": 2.0, "seed": 42, "base_size": "auto", "model": "mine", "theta": 256}
    for item in drawn_bench.perfect(folder / "out"):
        path = item.prediction(folder / "out")
        save_png(Image.open(path), path, {"prompt": item.prompt, **told})
    assert evaluate("spatialedit", "bench", "-o", "out", *NO_MODEL, "--json") == 0
    report = json.loads((folder / json.loads(capsys.readouterr().out)["report"]).read_text(encoding="utf-8"))
    names = ("steps", "guidance_scale", "seed", "base_size")
    assert report["settings"] == {name: told[name] for name in names}
    assert (report["model"], report["theta"]) == ("mine", 256) and "pictures_without_settings" not in report


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("words", [[], ["--only-score"]])
def test_a_prediction_that_cannot_be_read_ends_a_run_before_its_work(folder, capsys, words):
    item = drawn_bench.perfect(folder / "out")[-1]
    path = item.prediction(folder / "out")
    path.write_bytes(path.read_bytes()[:-20])
    command = [word for word in NO_MODEL if word != "--only-score"]
    assert evaluate("spatialedit", "bench", "-o", "out", *command, *words) == 2
    assert f"{item.edit_id}.png is to be a picture: cannot read" in capsys.readouterr().err
    assert not (folder / "out" / "scores.jsonl").exists()


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["spatialedit", "nowhere"], "give SpatialEdit-Bench's folder"),
        (["spatialedit", "bench", "--steps", "0"], "steps is 0"),
        (["spatialedit", "bench", "--limit", "0"], "limit is 0"),
        (["spatialedit", "bench", "--base-size", "100"], "base size 100"),
        (["spatialedit", "bench", "--detect", "mine.py:nothing"], "nothing to call that is named nothing"),
        (["spatialedit", "bench", "--judge", "server"], "none is named: set JOYIMAGE_REWRITE_URL"),
        (["spatialedit", "bench", "--lora", "nowhere.safetensors"], "there is no LoRA file nowhere.safetensors"),
        (["longtext", "bench"], "give LongText-Bench's folder"),
        (["longtext", "bench", "--repeats", "0"], "repeats is 0"),
        (["choices", "nowhere.tsv"], "there is no table nowhere.tsv"),
        (["choices", "broken.tsv"], "row 7: its picture cannot be read"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(folder, capsys, words, message):
    table(folder / "broken.tsv", [row("6"), row("7", image="A" * 400)])
    assert evaluate(*words, "-o", "out", *FAST) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "out").exists()


@pytest.mark.usefixtures("no_model")
def test_a_file_in_place_of_the_folder_of_results_is_refused_before_any_work(folder, capsys):
    (folder / "out").write_text("")
    assert evaluate("spatialedit", "bench", "-o", "out", *FAST) == 2
    assert "nothing can be written into out" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_goes_on_where_it_was_stopped(folder, capsys, monkeypatch):
    from joyimage import JoyImage

    edit, made = JoyImage.edit, []

    def stopping(self, *inputs, **options):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(inputs)
        return edit(self, *inputs, **options)

    command = ["spatialedit", "bench", "-o", "out", "--steps", "1", "-g", "1", "--limit", "3", *OWN_TOOLS,
               "--poses", "mine.py:poses", *FAST]  # fmt: skip
    monkeypatch.setattr(JoyImage, "edit", stopping)
    assert evaluate(*command) == 130
    assert "2 of 3 pictures are kept, and the same command goes on" in capsys.readouterr().err
    monkeypatch.setattr(JoyImage, "edit", edit)
    pictures = list((folder / "out").rglob("*-????.png"))
    before = {path: path.stat().st_mtime_ns for path in pictures}
    assert len(before) == 2 and evaluate(*command) == 0
    assert {path: path.stat().st_mtime_ns for path in pictures} == before
    assert len(list((folder / "out").rglob("*-????.png"))) == 3
    assert read_parameters(pictures[0])["steps"] == 1
    assert evaluate(*command, "--steps", "2") == 2
    assert "was made with steps 1, not 2" in capsys.readouterr().err


@pytest.mark.slow
def test_texts_are_drawn_and_read(folder, capsys):
    (folder / "text_prompts.jsonl").write_text('{"prompt": "A sign.", "text": ["Open today, all day"], "prompt_id": 0}')
    command = ["longtext", ".", "-o", "out", "--steps", "1", "-g", "1", "--repeats", "2", "--reader", "mine.py:reader"]
    assert evaluate(*command, *FAST) == 0
    assert "all recall    0.5" in capsys.readouterr().out
    assert sorted(path.name for path in (folder / "out").glob("*.png")) == ["0000_1.png", "0000_2.png"]


@pytest.mark.slow
@pytest.mark.parametrize("words", [[], ["--words"]])
def test_letters_are_asked_of_the_model(folder, capsys, words):
    table(folder / "quiz.tsv", [row("1"), row("2", answer="A")])
    assert evaluate("choices", "quiz.tsv", "-o", "out", *words, *FAST, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["figures"]["all"]["questions"] == 2
    assert json.loads((folder / told["report"]).read_text(encoding="utf-8"))["benchmark"] == "quiz"


def test_help_waits_for_no_torch():
    code = "import sys; from joyimage.cli import main\ntry: main(['evaluate', 'spatialedit', '--help'])\n"
    code += "except SystemExit: print(*(sys.modules.keys() & {'torch', 'transformers', 'tqdm'}), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--poses" in done.stdout and done.stderr.split() == []


def test_the_server_judges_where_the_environment_says_so(folder, monkeypatch, capsys):
    monkeypatch.setenv("JOYIMAGE_JUDGE", "server")
    assert evaluate("spatialedit", "bench", "-o", "out", *NO_MODEL) == 2
    assert "JOYIMAGE_REWRITE_URL" in capsys.readouterr().err
    assert Image.open("bench/move/move-0000.png").size == (64, 64)
