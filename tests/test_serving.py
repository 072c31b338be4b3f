"""The server by the official client: what comes is what the library makes, to the byte."""

from __future__ import annotations

import base64
import io
import signal
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from live_server import Live, halted, live_server, model, png, scene, until
from PIL import Image

from joyimage import spatial
from joyimage.demo import asset

pytestmark = pytest.mark.slow  # as the server starts
BOX = (27, 6, 43, 28)


@pytest.fixture(scope="module")
def live() -> Live:
    return live_server()


@pytest.fixture(scope="module")
def client(live) -> openai.OpenAI:
    return live.client()


def opened(image) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(image.b64_json)))


def upload(picture: Image.Image) -> tuple[str, bytes, str]:
    return "picture.png", png(picture), "image/png"


def data_url(picture: Image.Image) -> str:
    return f"data:image/png;base64,{base64.b64encode(png(picture)).decode()}"


def same(answer, pictures: list[Image.Image]) -> bool:
    return [opened(each).tobytes() for each in answer.data] == [picture.tobytes() for picture in pictures]


def test_an_edit_is_that_of_the_library(client):
    answer = client.images.edit(
        image=upload(scene()), prompt="Remove the car.", n=2, size="64x64",
        extra_body={"seed": 7, "steps": 2, "guidance_scale": 3.5, "negative_prompt": "blur", "solver": "heun"},
    )  # fmt: skip
    made = model().edit(
        scene(), "Remove the car.", count=2, size=(64, 64), seed=7, steps=2, guidance_scale=3.5, negative_prompt="blur",
        solver="heun",
    )  # fmt: skip
    assert same(answer, made)
    assert [image.model_extra["seed"] for image in answer.data] == [7, 8]
    assert answer.size == "64x64" and answer.output_format == "png"


def test_several_pictures_and_a_mask(client):
    mask = Image.new("L", (64, 64))
    mask.paste(255, (8, 8, 40, 40))
    pictures = [asset("camera.png"), scene()]
    answer = client.images.edit(
        image=[upload(picture) for picture in pictures],
        mask=upload(mask),
        prompt="A red cube.",
        extra_body={"steps": 1},
    )
    assert same(answer, model().edit(pictures, "A red cube.", mask=mask, steps=1))


SPATIAL = {
    "move to a box": ({"move": "car", "box": list(BOX)}, spatial.move_object("car")),
    "rotate": ({"rotate": "purple car", "view": "right"}, spatial.rotate_object("purple car", "right")),
    "camera": ({"camera": {"yaw": 45, "pitch": -10.5, "zoom": "in"}}, spatial.camera(45, -10.5, "in")),
}


@pytest.mark.parametrize("name", SPATIAL)
def test_spatial_fields_write_the_sentence(client, name):
    fields, sentence = SPATIAL[name]
    answer = client.images.edit(image=upload(scene()), prompt="", extra_body={"steps": 1, **fields})
    picture = spatial.draw_box(scene(), BOX) if "box" in fields else scene()
    assert same(answer, model().edit(picture, sentence, steps=1))


def test_a_place_in_words_is_found_and_told(client):
    words = {"move": "pink cylinder", "to": "to the left"}
    answer = client.images.edit(image=upload(scene()), prompt="", extra_body={"steps": 1, **words})
    box = model().place(scene(), words["move"], words["to"])
    assert answer.model_extra["box"] == list(box)
    assert same(answer, model().edit(spatial.draw_box(scene(), box), spatial.move_object(words["move"]), steps=1))


def test_a_place_that_is_not_there_is_refused(client):
    words = {"move": "pink cylinder", "to": "to the left"}
    with pytest.raises(openai.BadRequestError, match="there is no room in the picture"):
        client.images.edit(image=upload(asset("rotate.png")), prompt="", extra_body={"steps": 1, **words})


def test_pictures_from_text_in_other_formats(client):
    fields = {"seed": 3, "steps": 1}
    answer = client.images.generate(prompt="a red cube", size="96x64", output_format="webp", extra_body=fields)
    (picture,) = model().generate("a red cube", size=(64, 96), seed=3, steps=1)
    made = opened(answer.data[0])
    assert (made.format, made.size) == ("WEBP", (96, 64))
    difference = [abs(a - b) for a, b in zip(made.convert("RGB").tobytes(), picture.tobytes(), strict=True)]
    assert sum(difference) / len(difference) < 12  # of 255: WebP at 90
    jpeg = client.images.generate(prompt="a red cube", output_format="jpeg", extra_body=fields)
    assert opened(jpeg.data[0]).format == "JPEG"


def test_the_best_of_candidates_and_what_it_was_chosen_from(client):
    sentence = spatial.rotate_object("purple car", "right")
    fields = {"rotate": "purple car", "view": "right", "candidates": 2, "steps": 2}
    answer = client.images.edit(image=upload(asset("rotate.png")), prompt="", extra_body=fields)
    (chosen,) = model().edit(asset("rotate.png"), sentence, candidates=2, steps=2)
    assert same(answer, [chosen])
    assert answer.data[0].model_extra["candidates"] == chosen.info["candidates"]


QUESTION = "Which colour is the car?"


def asked(client, **options):
    content = [
        {"type": "text", "text": QUESTION},
        {"type": "image_url", "image_url": {"url": data_url(scene())}},
    ]
    return client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": content}], temperature=0, **options
    )


def test_an_answer_is_that_of_the_library(client):
    choice = asked(client).choices[0]
    assert choice.message.content == model().ask(scene(), QUESTION, temperature=0)
    assert choice.finish_reason == "stop"


def test_an_answer_comes_word_by_word(client):
    chunks = list(asked(client, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == model().ask(scene(), QUESTION, temperature=0)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert len({chunk.id for chunk in chunks}) == 1


def test_an_answer_that_was_cut_says_so(client):
    assert asked(client, max_tokens=1).choices[0].finish_reason == "length"


def test_things_are_located(live):
    with live.http() as http:
        answer = http.post("/v1/locate", json={"image": data_url(scene()), "object": "car"}).json()
    assert answer == {"boxes": [list(box) for box in model().locate(scene(), "car")], "width": 64, "height": 64}


def test_an_answer_from_views(live):
    question = "Seen from the left, is the purple car behind the orange cylinder?"
    fields = {"steps": 1, "seed": 1, "temperature": 0, "views": 2}
    with live.http() as http:
        answer = http.post("/v1/reason", json={"image": data_url(scene()), "question": question, **fields}).json()
    reasoned = model().reason(scene(), question, **fields)
    assert answer["answer"] == reasoned.text and answer["note"] == reasoned.note
    views = [Image.open(io.BytesIO(base64.b64decode(view["b64_json"]))).tobytes() for view in answer["views"]]
    assert views == [view.tobytes() for view in reasoned.pictures] != []


def test_models_and_health(live, client):
    assert [each.id for each in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "joyimage"
    with pytest.raises(openai.NotFoundError, match="this server has tiny"):
        client.models.retrieve("gpt-image-1")
    with live.http() as http:
        assert http.get("/health").json()["status"] == "ok"
        asked = http.head("/health")
        assert (asked.status_code, asked.content) == (200, b"")


def test_what_is_null_is_left_out(live):
    request = {"prompt": "a red cube", "steps": 1}
    nothing = dict.fromkeys(("n", "size", "response_format", "background", "quality", "seed", "user"))
    with live.http() as http:
        answers = [http.post("/v1/images/generations", json=request | given) for given in ({}, nothing)]
        assert [answer.status_code for answer in answers] == [200, 200]
        assert answers[0].json()["data"] == answers[1].json()["data"]
        assert http.post("/v1/images/generations", json={"prompt": None}).json()["error"]["param"] == "prompt"
        assert http.post("/v1/images/generations", json=request | {"x": None}).json()["error"]["param"] == "x"


def test_metrics_count_answers_and_steps(live, client):
    def steps() -> float:
        lines = live.http().get("/metrics").text.splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith("joyimage_steps_total")))

    before = steps()
    client.images.generate(prompt="a red cube", extra_body={"steps": 3})
    assert steps() == before + 3
    text = live.http().get("/metrics").text
    assert 'joyimage_requests_total{endpoint="/v1/images/generations",status="200"}' in text


def test_the_description_names_every_field(live):
    described = live.http().get("/openapi.json").json()
    content = described["paths"]["/v1/images/edits"]["post"]["requestBody"]["content"]
    name = content["multipart/form-data"]["schema"]["$ref"].rpartition("/")[2]
    fields = described["components"]["schemas"][name]["properties"]
    assert {"image", "mask", "prompt", "seed", "steps", "move", "box", "camera", "solver"} <= fields.keys()


def test_what_the_library_warns_of_comes_with_the_picture(client):
    def note(prompt: str) -> str | None:
        return client.images.generate(prompt=prompt, extra_body={"steps": 1}).model_extra.get("note")

    assert note("a red cube") is None
    assert "tokens were cut" in note("x" * 8000)
    assert "close to a spatial instruction" in note("Move the camera.\n- Camera rotation: Yaw 45°.")


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="there is no such signal")
def test_equal_shapes_share_forwards_where_that_is_asked_for(live, client, monkeypatch):
    """Within a level of what each is by itself."""
    member, calls = live.pool.members[0], []
    monkeypatch.setattr(
        member, "start", lambda tickets, start=member.start: (calls.append(len(tickets)), start(tickets))
    )

    def edit(seed: int):
        fields = {"seed": seed, "steps": 3}
        return client.images.edit(image=upload(scene()), prompt=f"Edit {seed}.", extra_body=fields)

    with live.set(queue=40, batch=4), ThreadPoolExecutor(5) as threads:
        with halted(live):  # until all others wait behind the first
            first = threads.submit(edit, 0)
            until(lambda: live.busy)
            others = [threads.submit(edit, seed) for seed in range(1, 5)]
            until(lambda: len(live.pool.waiting) == 4)
        answers = [each.result(60) for each in others]
        first.result(60)
    assert calls == [1, 4]
    for seed, answer in enumerate(answers, 1):
        (alone,) = model().edit(scene(), f"Edit {seed}.", seed=seed, steps=3)
        made = opened(answer.data[0]).tobytes()
        assert max(abs(a - b) for a, b in zip(made, alone.tobytes(), strict=True)) <= 1
