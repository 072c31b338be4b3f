"""The command line, through its own entry point, on the bundled model."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import warnings
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from joyimage import JoyImage, spatial
from joyimage.cli import build_parser, commands, main
from joyimage.cli.spatial_edits import spatial_options
from joyimage.images import read_parameters

FAST = ["--size", "64x64", "--steps", "1", "--quiet", "--device", "cpu"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JOYIMAGE_MODEL", raising=False)
    for name in ("JOYIMAGE_REWRITE_URL", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, colour in (("cup.png", "teal"), ("hat.png", "red")):
        Image.new("RGB", (80, 64), colour).save(tmp_path / name)
    return tmp_path


def made(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name not in ("cup.png", "hat.png"))


def test_edit_saves_a_png_with_its_parameters(folder, capsys):
    assert main(["edit", "cup.png", "Remove the cup.", "--seed", "7", *FAST]) == 0
    assert capsys.readouterr().out == "cup-edit.png\n"
    parameters = read_parameters(folder / "cup-edit.png")
    assert parameters["prompt"] == "Remove the cup." and parameters["images"] == ["cup.png"]
    assert (parameters["seed"], parameters["steps"], parameters["size"]) == (7, 1, [64, 64])


def test_the_bundled_model_is_announced_where_no_other_was_named(folder, capsys, monkeypatch):
    said = "using the bundled tiny model"
    assert main(["edit", "cup.png", "Remove it.", *FAST]) == 0
    assert said in capsys.readouterr().err
    assert main(["edit", "cup.png", "Remove it.", "--model", "tiny", *FAST]) == 0
    assert said not in capsys.readouterr().err
    assert main(["plan", "--memory", "2GB"]) == 0
    assert said in capsys.readouterr().err
    monkeypatch.setenv("JOYIMAGE_MODEL", "tiny")
    assert main(["edit", "cup.png", "Remove it.", *FAST]) == 0
    assert said not in capsys.readouterr().err


def test_the_saved_parameters_make_the_same_picture_again(folder):
    main(["edit", "cup.png", "Remove the cup.", "--seed", "7", "-g", "2.5", *FAST])
    saved = read_parameters("cup-edit.png")
    names = ("seed", "steps", "guidance_scale", "rescale", "shift", "schedule", "solver", "size", "strength")
    (again,) = JoyImage.load("tiny").edit("cup.png", saved["prompt"], **{name: saved[name] for name in names})
    assert again.tobytes() == Image.open("cup-edit.png").tobytes()


def test_a_picture_names_how_the_networks_computed_where_it_matters(folder):
    main(["edit", "cup.png", "Remove the cup.", "-o", "plain.png", *FAST])
    main(["edit", "cup.png", "Remove the cup.", "-o", "other.png", "--attention", "math", "--products", "8bit", *FAST])
    plain, other = read_parameters("plain.png"), read_parameters("other.png")
    assert set(other) - set(plain) == {"attention", "products"}
    assert (other["attention"], other["products"]) == ("math", "8bit")


def test_what_a_preset_turns_on_can_not_be_turned_off_beside_it(folder, capsys):
    command = ["edit", "cup.png", "Remove the cup.", "--fast", *FAST]
    assert main([*command, "--forecast", "1"]) == 2
    assert "--forecast 1 turns off what --preset fast turns on (forecast 4)" in capsys.readouterr().err
    assert main([*command, "--forecast", "2", "--guidance-every", "1", "-o", "out.png"]) == 0
    assert read_parameters("out.png")["forecast"] == 2


@pytest.fixture
def painted(folder):
    """The name of a mask for `cup.png`, white in its middle."""
    mask = Image.new("L", (80, 64))
    mask.paste(255, (24, 16, 60, 48))
    mask.save(folder / "mask.png")
    return "mask.png"


def test_a_mask_keeps_all_else_and_the_sentence_is_told(folder, painted, capsys):
    assert main(["edit", "cup.png", "--mask", painted, "--exact", *FAST[2:], "-o", "out.png"]) == 0
    told, sentence = capsys.readouterr(), "Perform inpainting on this image. The original caption is: "
    saved = read_parameters("out.png")
    assert saved["prompt"].startswith(sentence) and f"note: the prompt is: {saved['prompt']}\n" in told.err
    assert saved["mask"] == "mask.png" and "outpaint" not in saved
    before, after = Image.open("cup.png"), Image.open("out.png")
    assert before.size == after.size and before.tobytes() != after.tobytes()
    kept = Image.composite(Image.new("RGB", before.size), after, Image.open(painted))
    assert kept.tobytes() == Image.composite(Image.new("RGB", before.size), before, Image.open(painted)).tobytes()


def test_an_instruction_goes_before_a_sentence(folder, painted, capsys):
    main(["edit", "cup.png", "Remove the cup.", "--mask", painted, "-o", "out.png", *FAST])
    assert "the prompt is" not in capsys.readouterr().err
    assert read_parameters("out.png")["prompt"] == "Remove the cup."


def test_each_picture_is_outpainted_by_its_own_sentence(folder, capsys):
    model = JoyImage.load("tiny")
    assert main(["edit", "cup.png", "hat.png", "--each", "--outpaint", "16,0,0,0", "-o", "wide", *FAST[2:]]) == 0
    files = [Path(line) for line in capsys.readouterr().out.splitlines()]
    for file, name in zip(files, ("cup.png", "hat.png"), strict=True):
        saved = read_parameters(file)
        assert saved["size"] == [64, 96] and saved["outpaint"] == [16, 0, 0, 0]
        assert saved["prompt"].removeprefix(
            "Extend the image beyond its boundaries using outpainting. The original caption is: "
        ) == model.caption(name)


@pytest.mark.slow
def test_nothing_of_ours_is_overwritten_but_a_named_file_is(folder):
    for _ in range(2):
        main(["edit", "cup.png", "Remove it.", *FAST])
    assert made(folder) == ["cup-edit-2.png", "cup-edit.png"]
    (folder / "out.png").write_text("old")
    main(["edit", "cup.png", "Remove it.", "-o", "out.png", *FAST])
    assert Image.open("out.png").size == (64, 64)


def test_several_pictures_instructions_and_seeds_in_one_call(folder, capsys):
    command = ["edit", "cup.png", "hat.png", "-i", "Put the hat on the cup.", "-i", "Swap them."]
    assert main([*command, "--count", "2", "--seed", "5", "--json", "-o", "all", *FAST]) == 0
    report = json.loads(capsys.readouterr().out)["pictures"]
    assert [(p["prompt"], p["seed"]) for p in report] == [
        (text, seed) for text in ("Put the hat on the cup.", "Swap them.") for seed in (5, 6)
    ]
    assert len(made(folder / "all")) == 4


def test_each_picture_by_itself(folder, capsys):
    assert main(["edit", "cup.png", "hat.png", "Paint it.", "--each", "--json", *FAST]) == 0
    report = json.loads(capsys.readouterr().out)["pictures"]
    assert [(p["prompt"], p["images"]) for p in report] == [("Paint it.", ["cup.png"]), ("Paint it.", ["hat.png"])]
    assert [p["path"] for p in report] == ["cup-edit.png", "hat-edit.png"]


def test_each_picture_has_its_own_name_also_with_several_seeds_and_folders(folder, capsys):
    (folder / "other").mkdir()
    (folder / "cup.png").rename(folder / "other" / "hat.png")
    command = ["edit", "hat.png", "other/hat.png", "Paint it.", "--each", "--count", "2", "--json", "-o", "all"]
    assert main([*command, *FAST]) == 0
    report = json.loads(capsys.readouterr().out)["pictures"]
    assert [Path(p["path"]).name for p in report] == [f"hat-edit{n}.png" for n in ("", "-2", "-3", "-4")]


def test_numbered_pictures_replace_none_that_is_read_and_one_that_is_named_may(folder, capsys):
    (folder / "cup.png").rename(folder / "cup-1.png")
    before = (folder / "cup-1.png").read_bytes()
    assert main(["edit", "cup-1.png", "Paint it.", "--count", "2", "-o", "cup.png", *FAST]) == 2
    assert "cup-1.png is read, so it is not replaced" in capsys.readouterr().err
    assert (folder / "cup-1.png").read_bytes() == before
    assert main(["edit", "cup-1.png", "Paint it.", "-o", "cup-1.png", *FAST]) == 0
    assert read_parameters("cup-1.png")["images"] == ["cup-1.png"]


@pytest.mark.parametrize(
    ("arguments", "prompt"),
    [
        (["--move", "cup", "--box", "8,8,40,40"], spatial.move_object("cup")),
        (["--rotate", "cup", "--view", "rear left"], spatial.rotate_object("cup", "rear left")),
        (["--camera", "45,-10,in"], spatial.camera(45, -10, "in")),
        (["--camera", "30"], spatial.camera(30)),
    ],
)
def test_spatial_options_write_the_instruction(folder, arguments, prompt):
    assert main(["edit", "cup.png", *arguments, "-o", "out.png", *FAST]) == 0
    told = read_parameters("out.png")
    assert told["prompt"] == prompt and told.get("box") == ([8, 8, 40, 40] if "--box" in arguments else None)


@pytest.mark.slow
def test_the_base_size_is_the_models_unless_given(folder):
    command = ["edit", "cup.png", "Remove it.", "-o", "out.png", "--steps", "1", "--quiet", "--device", "cpu"]
    for more, size in (([], (64, 64)), (["--base-size", "auto"], (64, 64)), (["--base-size", "256"], (288, 224)),
                       (["--exact"], (80, 64))):  # fmt: skip
        assert main([*command, *more]) == 0
        assert Image.open("out.png").size == size
    assert main(["generate", "a cube", *command[3:]]) == 0
    assert Image.open("out.png").size == (64, 64)


@pytest.mark.slow
def test_generate_ask_and_rewrite(folder, capsys):
    assert main(["generate", "a cube", "a sphere", *FAST]) == 0
    assert capsys.readouterr().out == "picture.png\npicture-2.png\n"
    ask = ["ask", "cup.png", "What is it?", "--max-new-tokens", "4", "--temperature", "0", "--device", "cpu"]
    assert main(ask) == 0
    streamed = capsys.readouterr().out
    assert main([*ask, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["answer"].strip() == streamed.strip()
    assert main(["rewrite", "remove cup", "--image", "cup.png", "--device", "cpu"]) == 0
    output = capsys.readouterr()
    assert output.out == "remove cup\n" and "note: the prompt was not rewritten" in output.err


def test_ask_without_a_question_describes(folder, capsys):
    common = ["--max-new-tokens", "4", "--temperature", "0", "--device", "cpu"]
    answers = []
    for question in ([], ["Describe this image in detail."]):
        assert main(["ask", "cup.png", *question, *common]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1]


@pytest.mark.parametrize("question", ["是" * 86, "What is it? " * 40])
def test_a_question_may_be_longer_than_a_file_name(folder, capsys, question):
    assert main(["ask", "cup.png", question, "--device", "cpu", "--max-new-tokens", "3", "--temperature", "0"]) == 0
    assert capsys.readouterr().out.strip()


def test_what_others_warn_of_is_no_note_of_ours(folder, capsys, monkeypatch):
    def noisy(options):
        warnings.warn("of theirs", stacklevel=1)

    monkeypatch.setattr("joyimage.cli.options.run_inspect", noisy)
    assert main(["inspect", "cup.png"]) == 0
    assert "of theirs" not in capsys.readouterr().err


def test_rewrite_by_a_server(folder, capsys, monkeypatch):
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append((self.path, self.headers["Authorization"], body))
            reply = {"choices": [{"message": {"content": 'Sure: {"Rewritten": "Remove the teal cup."}'}}]}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(reply).encode())

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("JOYIMAGE_REWRITE_URL", f"http://127.0.0.1:{server.server_port}/v1")
        monkeypatch.setenv("JOYIMAGE_REWRITE_KEY", "secret")
        monkeypatch.setenv("JOYIMAGE_REWRITE_MODEL", "some-model")
        code = main(["rewrite", "remove cup", "--image", "cup.png", "--json"])
        server.shutdown()
    assert code == 0
    assert json.loads(capsys.readouterr().out) == {
        "prompt": "remove cup",
        "rewritten": "Remove the teal cup.",
        "kind": "free",
        "changes": ["Remove {+the teal +}cup{+.+}"],
    }
    ((path, key, body),) = requests
    assert (path, key, body["model"]) == ("/v1/chat/completions", "Bearer secret", "some-model")
    image, text = body["messages"][1]["content"]
    assert image["image_url"]["url"].startswith("data:image/png;base64,") and text["text"] == "remove cup"


def test_rewrite_without_its_server_keeps_the_prompt(folder, capsys, monkeypatch):
    monkeypatch.setenv("JOYIMAGE_REWRITE_URL", "http://127.0.0.1:9")  # the discard port: nobody listens
    assert main(["rewrite", "remove cup"]) == 0
    output = capsys.readouterr()
    assert output.out == "remove cup\n" and "URLError" in output.err


def test_inspect_and_demo(folder, capsys):
    JoyImage.load("tiny")
    from safetensors.torch import save_file

    save_file(JoyImage.load("tiny", device="cpu").mmdit.state_dict(), "weights.safetensors")
    assert main(["inspect", "weights.safetensors"]) == 0
    assert "MMDiT" in capsys.readouterr().out
    assert main(["inspect", "weights.safetensors", "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert "mmdit" in json.dumps(report)


def test_inspect_says_how_a_picture_was_made(folder, capsys):
    made_with = ["edit", "cup.png", "Remove it.", *FAST, "--seed", "7", "-o", "out.png"]
    assert main(made_with) == 0
    capsys.readouterr()
    assert main(["inspect", "out.png"]) == 0
    text = capsys.readouterr().out
    assert "prompt: Remove it." in text and "seed: 7" in text and "sigmas" not in text
    assert main(["inspect", "out.png", "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert report == {"path": "out.png", "parameters": read_parameters("out.png")}


def test_what_a_picture_says_does_not_drive_the_terminal(folder, capsys):
    """Nor does half a character, which no output takes, end the program."""
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("joyimage", json.dumps({"prompt": "a\nb\x1b[2J\ud800", "images": ["\udcff.png"]}))
    Image.new("RGB", (2, 2)).save("said.png", pnginfo=chunks)
    assert main(["inspect", "said.png"]) == 0
    assert "prompt: a b\\x1b[2J\\ud800\n" in capsys.readouterr().out


def test_a_prompt_that_is_nearly_a_spatial_instruction_gets_a_note(folder, capsys):
    """Once for each, and an exact one gets none."""
    nearly = ["--instruction", "Move the cup into the red box.", "--instruction", spatial.move_object("cup")]
    assert main(["edit", "cup.png", *nearly, *FAST]) == 0
    note, options = [line for line in capsys.readouterr().err.splitlines() if "--move" in line]
    assert f"Did you mean: {spatial.move_object('cup')} The spatial nodes" in note and "remove the red box.' is" in note
    assert options == 'joyimage: note: in its place: --move "cup" --box LEFT,TOP,RIGHT,BOTTOM'


@pytest.mark.parametrize(
    ("instruction", "typed"),
    [
        (spatial.Rotate("car", "rear left"), '--rotate "car" --view "rear left"'),
        (spatial.Rotate('5" pipe', "left"), '--rotate \'5" pipe\' --view "left"'),
        (spatial.Camera(-45.5, 20, "in"), "--camera=-45.5,20,in"),
        (spatial.Move("red cup"), '--move "red cup" --box LEFT,TOP,RIGHT,BOTTOM'),
    ],
)
def test_an_instruction_as_options_is_that_instruction(folder, instruction, typed):
    assert spatial_options(instruction) == typed
    words = shlex.split(typed.replace("LEFT,TOP,RIGHT,BOTTOM", "1,1,9,9"))
    options = build_parser().parse_args(["edit", "cup.png", *words])
    assert commands._edit_inputs(options)[1] == [instruction.text]


BAD = [
    (["edit", "nowhere.png", "Remove it."], "nowhere.png"),
    (["edit", "cup.png"], "give a picture and an instruction"),
    (["edit", "cup.png", ""], "prompt 1 of 1 is empty"),
    (["edit", "cup.png", "hat.png"], "hat.png is a file, and no instruction was given"),
    (["edit", "cup.png", "Make it \udce9."], "prompt 1 of 1 holds '\\udce9' at place 9"),
    (["ask", "cup.png", "What is \ud800?"], "the question holds '\\ud800' at place 9"),
    (["generate", "A \udce9."], "prompt 1 of 1 holds '\\udce9' at place 3"),
    (["rewrite", "A \udce9."], "the prompt to rewrite holds '\\udce9' at place 3"),
    (["edit", "cup.png", "--move", "cup \udce9", "--box", "0,0,9,9"], "holds '\\udce9'"),
    (["edit", "cup.png", "Remove it.", "--negative-prompt", "\ud800"], "holds '\\ud800'"),
    (["inspect", "x" * 300], "no such file or folder"),
    (["edit", "x" * 300, "Remove it."], "name"),
    (["ask", "x" * 300, "What?"], "name"),
    (["edit", "cup.png", "Remove it.", "--steps", "0"], "steps"),
    (["edit", "cup.png", "Remove it.", "--sigmas", "0.2,0.4"], "fall"),
    (["edit", "cup.png", "Remove it.", "--solver", "magic"], "euler, heun"),
    (["edit", "cup.png", "Remove it.", "--base-size", "300"], "64, 256, 512"),
    (["edit", "cup.png", "Remove it.", "-o", "out.jpg"], "out.png"),
    (["edit", "cup.png", "--move", "cup"], "--box"),
    (["edit", "cup.png", "--move", "cup", "--box", "0,0,500,20"], "80"),
    (["edit", "cup.png", "--rotate", "cup", "--view", "behind"], "rear left"),
    (["edit", "cup.png", "--camera", "fast"], "'fast' is not a number of degrees"),
    (["edit", "cup.png", "--camera", "10,20,sideways"], "in, out, unchanged"),
    (["edit", "cup.png", "--camera", "10", "--rotate", "cup"], "cannot go together"),
    (["edit", "cup.png", "Remove it.", "--model", "nowhere"], "nowhere"),
    (["ask", "cup.png", "What?", "--device", "toaster"], "no device 'toaster'"),
    (["ask", "cup.png", "What?", "--temperature", "-1"], "temperature"),
    (["edit", "cup.png", "Remove it.", "--mask", "nowhere.png"], "nowhere.png does not exist"),
    (["edit", "cup.png", "Remove it.", "--mask", "hat.png", "--outpaint", "9,0,0,0"], "cannot go together"),
    (["edit", "cup.png", "--mask", "hat.png", "--camera", "10"], "--mask and --camera cannot go together"),
    (["edit", "cup.png", "--outpaint", "0,0,0,0"], "outpaint adds nothing"),
    (["edit", "cup.png", "--outpaint=-16,0,0,0"], "from 0 to 16384"),
    (["edit", "nowhere.png", "--outpaint", "16,0,0,0"], "nowhere.png"),
    (
        ["edit", "cup.png", "Remove it.", "--mask", "hat.png", "-o", "./hat.png"],
        "hat.png is read, so it is not replaced",
    ),
    (["inspect", "nowhere.safetensors"], "nowhere.safetensors"),
    (["inspect", "cup.png"], "cup.png"),
    (["rewrite", " "], "empty"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(arguments) for arguments, _ in BAD])
def test_bad_input_gives_one_line_and_code_2(folder, capsys, arguments, message):
    fast = FAST if arguments[0] == "edit" else []
    fast = fast[2:] if "--base-size" in arguments else fast
    fast = [part for part in fast if "--steps" not in arguments or part not in ("--steps", "1")]
    assert main([*arguments, *fast]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if "note:" not in line]
    assert len(error) == 1 and error[0].startswith("joyimage: error: ") and message in error[0]
    assert made(folder) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--size", "64"],
        ["--base-size", "big"],
        ["--sigmas", "a,b"],
        ["--box", "1,2"],
        ["--guidance-interval", "1"],
        ["--outpaint", "1,2,3"],
    ],
)
def test_options_that_cannot_be_read_show_the_usage(folder, capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        main(["edit", "cup.png", "Remove it.", *arguments])
    assert stop.value.code == 2 and "usage: joyimage edit" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("judge", "address", "message"),
    [
        ("somebody", "", 'must be "own"'),
        ("server", "", "no server is named"),
        ("server", "ftp://nowhere", "must be an address"),
    ],
)
def test_a_judge_that_cannot_be_asked_is_refused_before_weights_are_opened(
    folder, capsys, monkeypatch, judge, address, message
):
    monkeypatch.setattr("joyimage.pipeline.JoyImage.load", lambda *_, **__: pytest.fail("weights were opened"))
    monkeypatch.setenv("JOYIMAGE_JUDGE", judge)
    monkeypatch.setenv("JOYIMAGE_REWRITE_URL", address)
    assert main(["edit", "cup.png", "Remove it.", "--candidates", "2", *FAST]) == 2
    assert message in capsys.readouterr().err and made(folder) == []


def test_debug_shows_the_traceback(folder, capsys):
    assert main(["edit", "nowhere.png", "Remove it.", "--debug", *FAST]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_an_unexpected_failure_gives_code_1(folder, capsys, monkeypatch):
    monkeypatch.setattr("joyimage.pipeline.JoyImage.edit", lambda *_, **__: 1 / 0)
    assert main(["edit", "cup.png", "Remove it.", *FAST]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_ctrl_c_leaves_no_half_written_file(folder):
    """A real interrupt in the middle of a real run, in a process of its own."""
    command = [sys.executable, "-m", "joyimage", "edit", "cup.png", "Remove it.", "-o", "out.png"]
    process = subprocess.Popen(
        [*command, "--size", "64x64", "--steps", "100000"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    seen = ""
    while "/100000" not in seen:  # the progress bar: sampling has begun
        character = process.stderr.read(1)
        assert character, f"ended early: {seen}"
        seen += character
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in rest
    assert made(folder) == []


def test_ctrl_c_while_saving_leaves_no_half_written_file(folder, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("PIL.Image.Image.save", interrupted)
    assert main(["edit", "cup.png", "Remove it.", "-o", "out.png", *FAST]) == 130
    assert made(folder) == []


@pytest.mark.parametrize(("arguments", "threads"), [([], 1), (["--threads", "2"], 2)])
@pytest.mark.slow
def test_a_small_model_takes_one_thread_unless_told(folder, monkeypatch, arguments, threads):
    counts = []
    monkeypatch.setattr("torch.set_num_threads", counts.append)
    assert main(["edit", "cup.png", "Remove the cup.", *arguments, *FAST]) == 0
    assert main(["demo", "-o", "demo", "--quiet", *arguments]) == 0
    assert set(counts) == {threads}


def test_the_library_leaves_threads_alone(monkeypatch):
    monkeypatch.setattr("torch.set_num_threads", lambda count: pytest.fail(f"set to {count}"))
    JoyImage.load("tiny").generate("A red cube.", steps=1, size=(64, 64))


def test_messages_are_cut_in_the_middle(folder, capsys):
    assert main(["edit", "cup.png", "--rotate", "cup", "--view", "v" * 100_000]) == 2
    error = capsys.readouterr().err
    assert len(error) < 2050 and error.startswith("joyimage: error: ") and "rear left" in error and "more …" in error
    assert main(["inspect", "x" * 100_000]) == 2
    assert len(capsys.readouterr().err) < 2050


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems' file names are Unicode")
def test_a_file_name_that_is_no_utf_8_is_printed_as_it_is(folder):
    name = b"caf\xe9.png"
    (folder / "cup.png").rename(folder / os.fsdecode(name))
    command = [sys.executable, "-m", "joyimage", "edit", os.fsdecode(name), "Remove it.", *FAST]
    done = subprocess.run(command, cwd=folder, capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"caf\xe9-edit.png\n")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends processes in one way only")
def test_sigterm_leaves_nothing_half_written(folder, monkeypatch, capsys):
    monkeypatch.setattr("PIL.Image.Image.save", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    assert main(["edit", "cup.png", "Remove it.", "-o", "out.png", *FAST]) == 143
    assert made(folder) == [] and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.slow
def test_runs_in_one_folder_replace_nothing(folder):
    """Both begin before either has saved."""
    command = [sys.executable, "-m", "joyimage", "edit", "cup.png", "Remove it.", "--count", "3", *FAST]
    runs = [subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [path for run in runs for path in run.communicate(timeout=120)[0].split()]
    assert sorted(printed) == made(folder) and len(set(printed)) == 6
