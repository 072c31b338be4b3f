"""Chats as the official client sends them: what was said before, pictures in any turn, tokens counted."""

from __future__ import annotations

import base64

import openai
import pytest
from live_server import Live, live_server, model, png, scene

from joyimage.demo import asset
from joyimage.messages import Message
from joyimage.settings import Answering

pytestmark = pytest.mark.slow  # as the server starts
GREEDY = Answering(temperature=0)
DESCRIBE = "Describe this image in detail."
FIRST, SECOND = "Which colour is the car?", "What is left of it?"


@pytest.fixture(scope="module")
def live() -> Live:
    return live_server()


@pytest.fixture(scope="module")
def client(live) -> openai.OpenAI:
    return live.client()


def user(text: str, *pictures) -> dict:
    urls = [f"data:image/png;base64,{base64.b64encode(png(each)).decode()}" for each in pictures]
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"role": "user", "content": [{"type": "text", "text": text}, *parts]}


def chat(client: openai.OpenAI, messages: list, **options):
    return client.chat.completions.create(model="tiny", messages=messages, **{"temperature": 0, **options})


def test_a_chat_goes_on_with_what_the_client_was_given(client):
    messages: list = [{"role": "developer", "content": "Be brief."}, user(FIRST, scene())]
    first = chat(client, messages)
    messages += [
        first.choices[0].message,
        user(SECOND, asset("camera.png")),
    ]  # as it came
    second = chat(client, messages)
    before = model().reply(scene(), FIRST, GREEDY, system="Be brief.")
    history = [Message("user", FIRST, [scene()]), Message("assistant", before.text)]
    reply = model().reply(asset("camera.png"), SECOND, GREEDY, system="Be brief.", history=history)
    assert first.choices[0].message.content == before.text
    assert second.choices[0].message.content == reply.text
    assert second.usage.prompt_tokens == reply.prompt_tokens > first.usage.prompt_tokens


def test_tokens_are_counted_with_those_of_pictures(client):
    alone, shown = (chat(client, [user(FIRST, *pictures)]).usage for pictures in ((), (scene(),)))
    reply = model().reply(scene(), FIRST, GREEDY)
    (grid,) = model().encoder.vision.read([scene()], "cpu").grids
    assert (shown.prompt_tokens, shown.completion_tokens) == (reply.prompt_tokens, reply.tokens)
    assert shown.total_tokens == shown.prompt_tokens + shown.completion_tokens
    assert shown.prompt_tokens == alone.prompt_tokens + grid[0] * grid[1] + 2


@pytest.mark.parametrize("limit", [1, 2])
def test_a_limit_is_kept_to_the_token(client, limit):
    answer = chat(client, [user(FIRST, scene())], max_completion_tokens=limit)
    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (limit, "length")


def test_a_stream_ends_with_its_tokens_where_that_is_asked_for(client):
    messages = [user(FIRST, scene())]
    *chunks, last = chat(client, messages, stream=True, stream_options={"include_usage": True})
    assert all(len(chunk.choices) == 1 and chunk.usage is None for chunk in chunks)
    assert last.choices == [] and last.usage == chat(client, messages).usage
    assert chunks[-1].choices[0].finish_reason == "stop" and last.id == chunks[0].id
    plain = list(chat(client, messages, stream=True))
    assert len(plain) == len(chunks) and all(chunk.choices for chunk in plain)


def test_an_answer_ends_before_a_stop(client):
    whole = chat(client, [user(DESCRIBE, scene())]).choices[0].message.content
    word = whole.split()[5]
    answer = chat(client, [user(DESCRIBE, scene())], stop=[word, "never said"])
    streamed = chat(client, [user(DESCRIBE, scene())], stop=word, stream=True)
    assert answer.choices[0].message.content == whole[: whole.index(word)] != ""
    assert answer.choices[0].finish_reason == "stop"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == whole[: whole.index(word)]


def test_what_changes_nothing_is_taken(client):
    messages = [user(FIRST, scene())]
    answer = chat(
        client, messages, n=1, frequency_penalty=0, presence_penalty=0.0, logit_bias={}, logprobs=False,
        response_format={"type": "text"}, store=False, metadata={"a": "b"}, user="me", service_tier="auto",
        safety_identifier="me", prompt_cache_key="k", parallel_tool_calls=True, verbosity="low", tool_choice="none",
        modalities=["text"], stop=None, top_p=0.5, seed=3,
    )  # fmt: skip
    assert answer.choices[0].message.content == chat(client, messages).choices[0].message.content


@pytest.mark.parametrize(
    "given",
    [{"n": 2}, {"frequency_penalty": 1}, {"logit_bias": {"5": 10}}, {"logprobs": True},
     {"response_format": {"type": "json_object"}}, {"reasoning_effort": "high"}, {"store": True},
     {"modalities": ["text", "audio"]}, {"tools": [{"type": "function", "function": {"name": "f"}}]}],
    ids=lambda given: next(iter(given)),
)  # fmt: skip
def test_what_cannot_be_done_is_refused_by_name(client, given):
    with pytest.raises(openai.BadRequestError) as refused:
        chat(client, [user(FIRST, scene())], **given)
    assert refused.value.param == next(iter(given))
