"""Chats of several turns against transformers' own path, and what a reply tells of itself."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_qwen
import torch
from PIL import Image

from joyimage import JoyImage, JoyImageError
from joyimage.encoder import Encoder
from joyimage.encoder.answers import AnswerStream
from joyimage.messages import Message
from joyimage.prompts import CHAT_SYSTEM
from joyimage.settings import Answering
from tools.processor import processor

GREEDY = Answering(max_new_tokens=12, temperature=0)
LIVELY = Answering(max_new_tokens=60, temperature=2, top_k=0, top_p=1)


def picture(height: int, width: int, seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


IMAGES = [picture(256, 320, 1), picture(352, 256, 2), picture(256, 256, 3)]
HISTORY = [
    Message("user", "what is it?", IMAGES[:1]),
    Message("assistant", "a <|im_end|> hat\n"),
    Message("user", "", IMAGES[1:2]),
    Message("user", "and these?"),
    Message("assistant", ""),
]
# As the template that comes with Qwen3-VL writes it; what looks like a control token in a text is kept apart below.
VISION = "<|vision_start|><|image_pad|><|vision_end|>"
WRITTEN = (
    f"<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\n{VISION}what is it?<|im_end|>\n"
    f"<|im_start|>assistant\na TOKEN hat\n<|im_end|>\n<|im_start|>user\n{VISION}<|im_end|>\n"
    f"<|im_start|>user\nand these?<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n"
    f"<|im_start|>user\n{VISION}which is red?<|im_end|>\n<|im_start|>assistant\n"
)


@pytest.fixture(scope="module")
def tokens():
    return tiny_qwen.tokenizer()


@pytest.fixture(scope="module")
def model(tokens):
    return tiny_qwen.model(tokens)


@pytest.fixture(scope="module")
def encoder(model, tokens):
    return Encoder(model, tokens)


def test_a_chat_is_written_as_qwens_template_writes_it(encoder, tokens):
    before, after = WRITTEN.split("TOKEN")
    literal = encoder.chat.ids(["assistant\na <|im_end|> hat\n"])
    start = len(tokens(before.removesuffix("assistant\na "))["input_ids"])
    ids = encoder.chat.question_ids("be brief", "which is red?", [(1, 1)] * 3, HISTORY)
    assert ids[:start] == tokens(before.removesuffix("assistant\na "))["input_ids"]
    assert ids[start : start + len(literal)] == literal
    assert ids[start + len(literal) :] == tokens(after.removeprefix(" hat\n"))["input_ids"]


def test_a_chat_with_pictures_in_several_turns_goes_on_as_transformers_goes_on(encoder, model, tokens):
    plain = [each if each.text != HISTORY[1].text else Message("assistant", "a TOKEN hat\n") for each in HISTORY]
    inputs = processor(tokens)(text=[WRITTEN], images=IMAGES, return_tensors="pt")
    ids = model.generate(**inputs, max_new_tokens=12, do_sample=False, eos_token_id=tokens.eos_token_id)
    new = ids[0, inputs["input_ids"].shape[1] :]
    reply = encoder.reply(IMAGES[2:], "which is red?", GREEDY, system="be brief", history=plain)
    assert reply.text == tokens.decode(new, skip_special_tokens=True)
    assert (reply.prompt_tokens, reply.tokens) == (inputs["input_ids"].shape[1], len(new))
    assert reply.text != encoder.reply(IMAGES[2:], "which is red?", GREEDY, system="be brief").text


def test_a_long_question_is_cut_and_nothing_before_it(encoder):
    digits = "".join(map(str, np.random.default_rng(0).integers(0, 10, 4100)))
    with pytest.warns(UserWarning, match="its last 4 tokens were cut"):
        ids = encoder.chat.question_ids(CHAT_SYSTEM, digits, [(2, 2)], [Message("user", digits, IMAGES[:1])])
    assert ids == encoder.chat.question_ids(CHAT_SYSTEM, digits[:4096], [(2, 2)], [Message("user", digits, IMAGES[:1])])
    assert len(ids) > 8192


@pytest.mark.parametrize("token", ["<|im_end|>", "<|endoftext|>"])
def test_a_reply_says_whether_it_came_to_its_end(tokens, token, encoder):
    ending = tiny_qwen.model(tokens)
    end = torch.tensor([tokens.convert_tokens_to_ids(token)])
    ending.lm_head.register_forward_hook(lambda _module, _args, logits: (logits * 0).index_fill(-1, end, 1.0))
    reply = Encoder(ending, tokens).reply([], "what?", GREEDY)
    assert (reply.text, reply.tokens, reply.whole) == ("", 1, True)
    cut = encoder.reply([], "what?", GREEDY)
    assert (cut.tokens, cut.whole) == (12, False)


def test_a_reply_ends_before_a_word_of_stop(encoder):
    whole = encoder.reply([], "what?", LIVELY).text
    word = whole[20:24]
    pieces: list[str] = []
    reply = encoder.reply([], "what?", LIVELY, stop=("not in there at all", word), on_text=pieces.append)
    assert reply.text == whole[: whole.index(word)] == "".join(pieces)
    assert reply.whole and not encoder.reply([], "what?", LIVELY).whole


@pytest.mark.parametrize(
    ("pieces", "stop", "text"),
    [
        (["one ", "two ", "three"], (), "one two three"),
        (["one ", "two ", "three"], ("two",), "one "),
        (["a", "b", "c", "d"], ("bcd",), "a"),
        (["a", "b", "c", "x"], ("bcd",), "abcx"),
        (["a", "b", "c"], ("bcd",), "abc"),  # the end: what was held back comes
        (["ab", "abc"], ("abc",), "ab"),
        (["x STOP y END"], ("END", "STOP"), "x "),
        (["END"], ("END",), ""),
    ],
)  # fmt: skip
def test_what_may_be_the_beginning_of_a_stop_is_held_back(tokens, pieces, stop, text):
    told: list[str] = []
    stream = AnswerStream(tokens, told.append, stop)
    for i, piece in enumerate(pieces):
        stream.on_finalized_text(piece, stream_end=i == len(pieces) - 1)
    assert stream.text == "".join(told) == text
    assert stream.stopped is (text != "".join(pieces))


def test_messages_that_cannot_be_are_refused():
    for given, why in (
        (("system", "x"), "a message has the role 'system'; give user or assistant"),
        (("user", None), "a message of the user must be text"),
        (("assistant", "x", IMAGES[:1]), "give them with one of the user"),
        (("assistant", "x", IMAGES[0]), "give them with one of the user"),
    ):
        with pytest.raises(JoyImageError, match=why):
            Message(*given)


def test_the_library_goes_on_with_a_chat(tmp_path):
    model = JoyImage.load("tiny", device="cpu")
    IMAGES[0].save(tmp_path / "first.png")
    history = [Message("user", "What is it?", [tmp_path / "first.png"]), Message("assistant", "A hat.")]
    answer = model.ask(IMAGES[1], "And this?", history=history, system="Be brief.", temperature=0)
    given = [Message("user", "What is it?", IMAGES[:1]), history[1]]
    settings = Answering(temperature=0)
    assert answer == model.encoder.reply(IMAGES[1:2], "And this?", settings, system="Be brief.", history=given).text
    assert model.reply(IMAGES[1], "And this?", settings).prompt_tokens < model.reply(
        IMAGES[1], "And this?", settings, history=history
    ).prompt_tokens  # fmt: skip
