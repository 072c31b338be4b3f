"""The report: JSON that any program reads, and a page that needs nothing else; and tools that users name."""

from __future__ import annotations

import base64
import html.parser
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from PIL import Image

from joyimage import prompts
from joyimage.candidates import Attempt
from joyimage.errors import JoyImageError
from joyimage.evaluation.page import MOST_ROWS, SIDE, page
from joyimage.evaluation.report import Report, Row, Shown
from joyimage.evaluation.tools import (
    CONSISTENCY_SYSTEM,
    detect,
    load_tool,
    own_judge,
    own_tools,
    reader,
    remembered,
    see,
    server_judge,
)
from joyimage.judging import Mind
from joyimage.settings import VIEWS

RED = Image.new("RGB", (60, 30), (200, 30, 30))


def row(name: str, goodness: float | None = 0.5, note: str = "", **values) -> Row:
    return Row(name, "move", f"Move <{name}> & stop.", goodness, note, values, [Shown("edit", lambda: RED)])


class Tags(html.parser.HTMLParser):
    """What a page loads, and whether its tags close."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.sources, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href", "srcset", "data")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_is_whole_and_loads_nothing():
    report = Report("A & B", {"move": {"iou": 0.25, "score": None}}, {"model": "<tiny>"}, [row("a"), row("b")])
    text = page(report)
    tags = Tags(text)
    assert tags.open == [] and len(tags.sources) == 2
    assert all(source.startswith("data:image/jpeg;base64,") for source in tags.sources)
    assert "url(" not in text and "@import" not in text and "<script" not in text
    words = " ".join(tags.words)
    assert "A & B" in words and "<tiny>" in words and "Move <a> & stop." in words and "not measured" in words


def test_pictures_are_small_and_carry_their_boxes():
    shown = Shown("edit", lambda: RED, (((10, 5, 40, 25), "lime"),))
    (source,) = Tags(page(Report("x", {}, {}, [Row("a", "", "", 1.0, "", {}, [shown])]))).sources
    with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as image:
        assert image.size == (SIDE, SIDE // 2)
        scale = SIDE / 60
        green = image.getpixel((round(10 * scale), round(15 * scale)))
        assert green[1] > 150 > green[0]
        assert image.getpixel((round(25 * scale), round(15 * scale)))[0] > 150


def test_what_failed_comes_first():
    rows = [row("good", 0.9), row("bad", 0.1), row("failed", 0.5, "no cup is found"), row("unknown", None)]
    report = Report("x", {}, {}, rows)
    assert [each.name for each in report.worst_first] == ["failed", "unknown", "bad", "good"]
    text = page(report)
    assert text.index("no cup is found") < text.index("<b>bad</b>") < text.index("<b>good</b>")


def test_a_long_page_is_cut_and_says_so():
    report = Report("x", {}, {}, [row(f"item-{i}", i / 1000) for i in range(MOST_ROWS + 5)])
    text = page(report)
    assert text.count("<article>") == MOST_ROWS and f"The first {MOST_ROWS}" in text
    assert "<b>item-0</b>" in text and f"<b>item-{MOST_ROWS}</b>" not in text


def test_a_picture_that_cannot_be_read_is_named():
    def load():
        raise JoyImageError("a.png <is> cut off")

    text = page(Report("x", {}, {}, [Row("a", "", "", 1.0, "", {}, [Shown("edit", load)])]))
    assert "a.png &lt;is&gt; cut off" in text
    assert "<h2>1 item</h2>" in text


def test_both_files_are_written_whole(tmp_path):
    report = Report("x", {"all": {"recall": 1 / 3}}, {"items": 1}, [row("ä", box=(1.23456789, 2), missing=None)])
    data, shown = report.save(tmp_path / "new")
    told = json.loads(data.read_text(encoding="utf-8"))
    assert told["figures"] == {"all": {"recall": 0.333333}} and told["benchmark"] == "x" and told["items"]
    assert told["items"][0] == {"item": "ä", "prompt": "Move <ä> & stop.", "box": [1.234568, 2], "missing": None}
    assert {path.name for path in (tmp_path / "new").iterdir()} == {data.name, shown.name}
    assert str(report) == "all recall  0.3333"


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(JoyImageError, match="cannot write"):
        Report("x", {}, {}, []).save(tmp_path / "file")


MIND = Mind(
    lambda pictures, question: (
        "red cup, red cup, plate"
        if question == prompts.NAMES_QUESTION
        else '[{"bbox_2d": [0, 0, 500, 1000]}, {"bbox_2d": [500, 0, 1000, 1000]}]'
        if "cup" in question
        else "none"
    ),
    lambda pictures, question, answers, **_: [0.0 if each in ("left", "yes") else -3.0 for each in answers],
)


def test_the_model_names_and_finds_things():
    first, second = detect(MIND, [RED, RED.resize((120, 60))])
    assert [(each.label, each.box) for each in first] == [("red cup", (0, 0, 30, 30)), ("red cup", (30, 0, 60, 30))]
    assert [each.box for each in second] == [(0, 0, 60, 60), (60, 0, 120, 60)]


def test_the_model_tells_a_side_and_reads():
    assert see(MIND, RED, "cup") == "left" and "left" in VIEWS
    assert reader(lambda: MIND)(RED) == "none"


def test_the_model_as_judge_is_as_sure_as_it_is():
    assert own_judge(lambda: MIND)(Attempt((RED,), "Move it.", RED)).score == pytest.approx(1 / (1 + 2.718281828**-3))


def test_the_server_is_asked_for_identity_alone(monkeypatch):
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            said = {"content": '{"score": 80, "reason": "the handle is gone"}'}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"choices": [{"message": said}]}).encode())

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("JOYIMAGE_REWRITE_URL", f"http://127.0.0.1:{server.server_port}/v1")
        verdict = server_judge()(Attempt((RED,), "Move the cup.", RED))
        server.shutdown()
    assert (verdict.score, verdict.reason) == (0.8, "the handle is gone")
    ((system, user),) = (request["messages"] for request in requests)
    assert system["content"] == CONSISTENCY_SYSTEM
    before, after, question = user["content"]
    assert before == after and question["text"] == "The edit was: Move the cup."


def test_the_own_tools_need_a_model_when_they_are_asked():
    tools = own_tools(lambda: pytest.fail("loaded"), "big")
    assert set(tools.names.values()) == {"own: big"} and tools.judge is None
    asked = own_tools(lambda: MIND)
    assert list(asked.locate(RED, "cup")) == [(0, 0, 30, 30), (30, 0, 60, 30)] and asked.see(RED, "cup") == "left"
    assert [each.label for each in asked.detect([RED])[0]] == ["red cup", "red cup"]
    assert asked.estimate([RED, RED, RED]) is None  # a name that occurs twice is of no use


def test_a_detector_remembers_its_last_pictures():
    asked = []
    find = remembered(lambda pictures: asked.append(len(pictures)) or [[] for _ in pictures])
    for pictures in ([RED], [RED.copy()], [RED, RED], [RED, RED], [RED]):
        assert find(pictures) == [[] for _ in pictures]
    assert asked == [1, 2, 1]


def test_a_tool_is_found_by_its_name(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def detect(picture):\n    return [picture]\n\nNAME = 3\n")
    assert load_tool(f"{file}:detect")(RED) == [RED]
    assert load_tool("json:dumps") is json.dumps


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("detect", "names no tool"),
        ("mine.py:", "names no tool"),
        ("nowhere.py:detect", "there is no file nowhere.py"),
        ("no_such_module:detect", "cannot be imported: ModuleNotFoundError"),
        ("mine.py:NAME", "mine.py has nothing to call that is named NAME"),
        ("mine.py:other", "nothing to call that is named other"),
        ("broken.py:detect", "cannot be imported: ZeroDivisionError"),
    ],
)
def test_a_tool_that_is_none_is_refused(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("NAME = 3\n")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    with pytest.raises(JoyImageError, match=message):
        load_tool(name)
