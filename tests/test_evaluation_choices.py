"""Multiple choice in VLMEvalKit's tables: rows and pictures, letters, and shares of right ones."""

from __future__ import annotations

import base64
import csv
import io
import math
import pickle

import numpy as np
import pytest
from PIL import Image

from joyimage import JoyImage
from joyimage.errors import JoyImageError
from joyimage.evaluation import choices
from joyimage.evaluation.choices import letter_of, read_questions
from joyimage.judging import Mind
from tools.tiny import questions as exam

COLUMNS = ["index", "image", "image_path", "question", "A", "B", "C", "hint", "category", "answer"]


def encoded(colour: str, side: int = 40) -> str:
    """A picture in base64; noise, so that it is not short."""
    noise = np.random.default_rng(len(colour)).integers(0, 255, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.blend(Image.fromarray(noise), Image.new("RGB", (side, side), colour), 0.5).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def row(index: str, **fields) -> dict[str, str]:
    common = {"question": "Which?", "A": "left", "B": "right", "answer": "B"}
    return {"index": index, "image": encoded("red"), **common, **fields}


def table(path, rows: list[dict[str, str]], columns=COLUMNS):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_rows_are_read(tmp_path):
    rows = [
        row("1", hint="Look.", C="none", category="place"),
        row("2", image="1"),
        row("3", image=str([encoded("red"), encoded("blue")])),
        row("4", image="", image_path="a.png"),
        row("5", question='Which of "a\tb"\nis it?', hint="nan", C="nan"),
    ]
    Image.new("RGB", (9, 7)).save(tmp_path / "a.png")
    limit = csv.field_size_limit()
    first, second, third, fourth, fifth = read_questions(table(tmp_path / "t.tsv", rows))
    assert csv.field_size_limit() == limit
    assert first.text.splitlines() == ["Look.", "Which?", "A. left", "B. right", "C. none", choices.CLOSING]
    assert first.groups == {"category": "place"} and second.pictures == first.pictures
    assert [len(each.images()) for each in (first, third, fourth)] == [1, 2, 1]
    assert first.images()[0].size == (40, 40) and fourth.images()[0].size == (9, 7)
    assert fifth.question == 'Which of "a\tb"\nis it?' and list(fifth.options) == ["A", "B"] and not fifth.hint


def test_long_pictures_are_read(tmp_path):
    (question,) = read_questions(table(tmp_path / "t.tsv", [row("1", image=encoded("red", 300))]))
    assert len(question.pictures[0]) > csv.field_size_limit() and question.images()[0].size == (300, 300)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"answer": "D"}, "row 1: its answer 'D' is none of the letters A, B"),
        ({"answer": ""}, "its answer ''"),
        ({"question": ""}, "no index or no question"),
        ({"B": ""}, "it has 1 options"),
        ({"image": "7"}, "that of the row '7', which has none"),
        ({"image": ""}, "it has no picture"),
        ({"image": "", "image_path": "b.png"}, "it has no picture"),
        ({"image": "[1, 2]" + " " * 80}, "no list of texts"),
        ({"image": "[__import__('os').getcwd()]" + " " * 80}, "no list of texts"),
    ],
)
def test_malformed_rows_are_named(tmp_path, fields, message):
    with pytest.raises(JoyImageError) as error:
        read_questions(table(tmp_path / "t.tsv", [row("1") | fields]))
    assert message in str(error.value)


def test_what_is_no_table_is_refused(tmp_path):
    (tmp_path / "t.tsv").write_bytes(pickle.dumps({"a": "\ud800".encode("utf-8", "surrogatepass")}))
    with pytest.raises(JoyImageError, match="no table in UTF-8"):
        read_questions(tmp_path / "t.tsv")
    with pytest.raises(JoyImageError, match="holds no rows"):
        read_questions(table(tmp_path / "t.tsv", []))
    with pytest.raises(JoyImageError, match="there is no table"):
        read_questions(tmp_path / "nowhere.tsv")


def test_a_row_with_more_fields_than_columns_is_named(tmp_path):
    (tmp_path / "t.tsv").write_text("index\timage\tquestion\n1\tx\t\tmore\n")
    with pytest.raises(JoyImageError, match="the columns are index, image, question"):
        read_questions(tmp_path / "t.tsv")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['1\tx\t"What is it?\ta\tb\tA', "2\tx\tAnd this?\ta\tb\tA"], "from its start on: unexpected end of data"),
        (["1\tx\tq\ta\tb\tA", '2\tx\t"What\ta\tb\tA', '3\tx\t"So" it is\ta\tb\tA'], "from row 2, up to line 4 on"),
        (["1\tx\tWhat is\tit?\ta\tb\tA"], "row 1: it has 7 cells"),
        (["1\tx\tq\ta\tb\tA", "1\tx\tr\ta\tb\tB"], "row 2: its index '1' is that of row 1, too"),
    ],
)
def test_what_would_take_other_rows_for_these_is_refused(tmp_path, lines, message):
    text = "\n".join(["index\timage\tquestion\tA\tB\tanswer", *lines]).replace("\tx\t", f"\t{encoded('red')}\t")
    (tmp_path / "t.tsv").write_text(text + "\n")
    with pytest.raises(JoyImageError, match=message):
        read_questions(tmp_path / "t.tsv")


def test_a_column_that_is_there_twice_is_refused(tmp_path):
    (tmp_path / "t.tsv").write_text("index\timage\tquestion\tA\tB\tA \tanswer\n1\tx\tq\ta\tb\tc\tA\n")
    with pytest.raises(JoyImageError, match="the column 'A' is there more than once"):
        read_questions(tmp_path / "t.tsv")


def test_a_table_of_windows_is_read_as_any_other(tmp_path):
    rows = [row("1 ", question='Which is "left"?'), row("2", image=" 1"), row("3")]
    plain = read_questions(table(tmp_path / "t.tsv", rows))
    text = (tmp_path / "t.tsv").read_text(encoding="utf-8").replace("\n", "\t\r\n") + "\r\n"
    (tmp_path / "t.tsv").write_text(text, encoding="utf-8-sig", newline="")
    assert read_questions(tmp_path / "t.tsv") == plain and plain[1].pictures == plain[0].pictures


@pytest.mark.parametrize(
    "image", ["A" * 400, "no base64!" * 40, encoded("red")[:100], base64.b64encode(b"x" * 99).decode()]
)
def test_a_picture_that_is_none_is_named_by_its_row(tmp_path, image):
    questions = read_questions(table(tmp_path / "t.tsv", [row("16"), row("17", image=image)]))
    for look in (lambda: questions[1].images(), lambda: choices.check_pictures(questions)):
        with pytest.raises(JoyImageError, match="row 17: its picture cannot be read"):
            look()


def test_a_picture_in_lines_is_read(tmp_path):
    lines = "\n".join(encoded("red")[i : i + 76] for i in range(0, len(encoded("red")), 76))
    (question,) = questions = read_questions(table(tmp_path / "t.tsv", [row("1", image=lines)]))
    choices.check_pictures(questions)
    assert question.images()[0].size == (40, 40)


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        (" (b). ", "B"),
        ("B. right", "B"),
        ("C) none", ""),  # no option of that letter
        ("The answer is B.", "B"),
        ("Answer: **A**", "A"),
        ("I choose option B, as it is on that side", "B"),
        ("Either option A or option B.", ""),
        ("right", "B"),
        ("Right.", "B"),
        ("A cup is on the left", ""),
        ("The answer is a cup", ""),
        ("The correct choice is (B)", "B"),
        ("<think>The answer is A.</think> B", "B"),
        ("", ""),
        ("b)", "B"),
        ("(b) right", "B"),
        ("b. right", "B"),
        ("the answer is b.", "B"),
        ("Option b", "B"),
        ("\\boxed{B}", "B"),
        ("So it is \\boxed{B}.", "B"),
        ("B right", "B"),
        ("B - right", "B"),
        ("B. It cannot be (A), which is behind.", "B"),
        ("答案是B", "B"),
        ("答案：B。", "B"),
        ("正确答案为 (B)", "B"),
        ("选B", "B"),
        ("应该选择B项", "B"),
        ("（Ｂ）", "B"),
        ("B、右边", "B"),
        ("A. left\nB. right", ""),
        ("(A) or (B)", ""),
        ("A, B", ""),
        ("选A或选B", ""),
        ("答案不是A", ""),
        ("a chair", ""),
        ("Bright", ""),
        ("i.e. neither", ""),
        ("E", ""),
    ],
)
def test_the_letter_in_an_answer(answer, letter):
    assert letter_of(answer, {"A": "left", "B": "right"}) == letter


def mind(chances: dict[str, float], answer: str = "") -> Mind:
    return Mind(
        lambda pictures, question: answer, lambda pictures, question, all_: [math.log(chances[a]) for a in all_]
    )


def test_the_likeliest_letter_is_taken(tmp_path):
    questions = read_questions(table(tmp_path / "t.tsv", [row("1"), row("2", answer="A")]))
    choose = choices.by_likelihood(lambda: mind({"A": 0.2, "B": 0.5}))
    answered = choices.answer_all(questions, choose, "by chance", tmp_path)
    assert [each.letter for each in answered] == ["B", "B"]
    assert choices.figures(answered) == {"all": {"accuracy": 0.5, "questions": 2}}


def test_figures_by_group_and_an_answer_without_a_letter(tmp_path):
    rows = [row("1", category="x"), row("2", category="y"), row("3", category="y", answer="A")]
    questions = read_questions(table(tmp_path / "t.tsv", rows))
    told = iter(["B", "no idea", "A"])
    answered = choices.answer_all(questions, choices.by_answer(lambda: mind({}, next(told))), "words", tmp_path)
    report = choices.report("t", answered, {})
    assert report.figures["category y"] == {"accuracy": 0.5, "questions": 2}
    assert report.figures["all"]["accuracy"] == pytest.approx(2 / 3)
    assert report.about == {"items": 3, "without_a_letter": 1}
    assert [row.name for row in report.worst_first] == ["2", "1", "3"]


def test_a_question_is_asked_once_of_each(tmp_path):
    questions = read_questions(table(tmp_path / "t.tsv", [row("1")]))
    asked = []

    def choose(question):
        asked.append(question.index)
        return "A"

    for name in ("one", "one", "two"):
        choices.answer_all(questions, choose, name, tmp_path)
    assert asked == ["1", "1"]


def test_a_question_is_asked_again_of_another_picture_of_the_same_name(tmp_path):
    asked = []

    def choose(question):
        asked.append(question.index)
        return "A"

    for colour in ("red", "red", "blue"):
        Image.new("RGB", (9, 7), colour).save(tmp_path / "a.png")
        questions = read_questions(table(tmp_path / "t.tsv", [row("1", image="", image_path="a.png")]))
        choices.answer_all(questions, choose, "one", tmp_path)
    assert asked == ["1", "1"]
    assert choices.figures([]) == {}


@pytest.mark.slow
def test_the_bundled_model_answers_of_drawn_scenes(tmp_path):
    """It was taught words and no letters: what is tested is that it is asked, not how well it does."""
    drawn = exam.make(3, np.random.default_rng(5))
    rows = []
    for pixels, asked in zip(drawn.pixels, drawn.questions, strict=True):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        (shape,) = [each for each in asked if each.kind == "shape"]
        wrong = next(kind for kind in exam.KINDS if kind != shape.answer)
        image = base64.b64encode(buffer.getvalue()).decode()
        rows.append(row(str(len(rows)), image=image, question=shape.text, A=shape.answer, B=wrong, answer="A"))
    questions = read_questions(table(tmp_path / "t.tsv", rows))
    model = JoyImage.load("tiny", device="cpu")
    letters = choices.answer_all(questions, choices.by_likelihood(lambda: model.mind), "tiny", tmp_path)
    assert all(each.letter in "AB" for each in letters)
