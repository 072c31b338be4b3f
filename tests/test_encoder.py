"""The encoder against transformers' and Diffusers' own path through the same random model."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import tiny_qwen
import torch
from einops import rearrange
from PIL import Image
from transformers import AutoTokenizer, ByT5Tokenizer

from joyimage import prompts
from joyimage.encoder import Encoder, answers, chat
from joyimage.errors import CheckpointError, JoyImageError
from joyimage.messages import Reply
from tools.processor import processor

PROMPTS = [
    "make the hat red",
    "",
    " ",
    "\n\n  leading lines and spaces",
    "trailing \n\n",
    "把帽子换成红色的，背景不变。",
    "cafe\u0301 👩‍🚀🎩 e\u0301te\u0301",  # decomposed accents, joined emoji
    "Camera rotation: Yaw 45.5°, Pitch -10°.\n- Camera zoom: in.",
    "(parentheses:1.3) [brackets] {braces} \\n <b>tags</b> <| im_end |>",
]


def picture(height: int, width: int, seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


DIGITS = "".join(map(str, np.random.default_rng(0).integers(0, 10, 5000)))  # each a token
IMAGES = [picture(256, 320, 1), picture(352, 256, 2)]


@pytest.fixture(scope="module")
def tokens():
    return tiny_qwen.tokenizer()


@pytest.fixture(scope="module")
def model(tokens):
    return tiny_qwen.model(tokens)


@pytest.fixture(scope="module")
def encoder(model, tokens):
    return Encoder(model, tokens)


def message(prompt: str, images: int, system: str = prompts.CONDITIONING_SYSTEM) -> str:
    vision = "<|vision_start|><|image_pad|><|vision_end|>" * images
    return (
        f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{vision}{prompt}<|im_end|>\n<|im_start|>assistant\n"
    )


def inputs_of(tokens, text: str, images) -> dict[str, torch.Tensor]:
    return processor(tokens)(text=[text], images=images or None, return_tensors="pt")


def prefix_length(tokens) -> int:
    return len(tokens(message("", 0).split("user\n")[0])["input_ids"])


@torch.inference_mode()
def reference(model, tokens, prompt: str, images=()) -> torch.Tensor:
    """The whole model run on one prompt, its last decoder layer watched."""
    outputs = []
    layer = model.model.language_model.layers[-1]
    hook = layer.register_forward_hook(lambda _module, _args, output: outputs.append(output))
    model(**inputs_of(tokens, message(prompt, len(images)), images))
    hook.remove()
    return outputs[0][0, prefix_length(tokens) :]


def oracle(name: str, model, tokens):
    """A Diffusers pipeline around the encoder; skips where Diffusers does not import beside this transformers."""
    try:
        import diffusers

        pipeline = getattr(diffusers, name)(None, None, model, tokens, None, processor(tokens))
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"Diffusers: {error}")
    for template in pipeline.prompt_template_encode_start_idx:
        pipeline.prompt_template_encode_start_idx[template] = prefix_length(tokens)  # 34 with Qwen's own tokenizer
    return pipeline


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return (a - b).abs().max().item()


# --- parity ---


@pytest.mark.parametrize("prompt", PROMPTS)
def test_context_without_image_equals_diffusers(encoder, model, tokens, prompt):
    expected, _ = oracle("JoyImageEditPipeline", model, tokens).encode_prompt(prompt, device="cpu")
    assert difference(encoder.encode([prompt])[0], expected[0]) <= 1e-5


@pytest.mark.parametrize("prompt", PROMPTS)
def test_context_with_image_equals_diffusers(encoder, model, tokens, prompt):
    pipeline = oracle("JoyImageEditPipeline", model, tokens)
    expected, _ = pipeline.encode_prompt_multiple_images(prompt, device="cpu", images=IMAGES[0])
    assert difference(encoder.encode([prompt], IMAGES[:1])[0], expected[0]) <= 1e-4


def test_context_with_two_images_equals_diffusers(encoder, model, tokens):
    pipeline = oracle("JoyImageEditPlusPipeline", model, tokens)
    texts = ["put the hat of the second picture on the first", " "]
    for context, text in zip(encoder.encode(texts, IMAGES), texts, strict=True):
        prompt = f"<|im_start|>user\n{'<image>' + chr(10)}{'<image>' + chr(10)}{text}<|im_end|>\n"
        expected, _ = pipeline.encode_prompt_multiple_images(prompt, device="cpu", images=IMAGES)
        assert difference(context, expected[0]) <= 1e-4


@pytest.mark.parametrize(("images", "bound"), [(0, 1e-5), (1, 1e-4), (2, 1e-4)])
def test_context_equals_a_plain_forward(encoder, model, tokens, images, bound):
    contexts = encoder.encode(PROMPTS, IMAGES[:images])
    for context, prompt in zip(contexts, PROMPTS, strict=True):
        assert difference(context, reference(model, tokens, prompt, IMAGES[:images])) <= bound


@pytest.mark.parametrize("images", [0, 1, 2])
@pytest.mark.parametrize("pack_limit", [4096, 40])
def test_prompts_together_equal_prompts_alone(encoder, monkeypatch, images, pack_limit):
    monkeypatch.setattr(chat, "PACK_LIMIT", pack_limit)
    together = encoder.encode(PROMPTS, IMAGES[:images])
    for context, prompt in zip(together, PROMPTS, strict=True):
        assert difference(context, encoder.encode([prompt], IMAGES[:images])[0]) <= 1e-5


def test_4096_tokens_are_a_pack():
    rows = [[0] * length for length in (2048, 2048, 2049, 2048)]
    assert list(chat.packs(rows)) == [rows[:2], rows[2:3], rows[3:]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_packed_row_sees_the_past_and_what_is_before_it_in_the_row(dtype):
    mask = chat.packed_mask(2, [2, 1, 3], dtype, torch.device("cpu"))
    seen = """
        1 1  1 0  0  0 0 0
        1 1  1 1  0  0 0 0
        1 1  0 0  1  0 0 0
        1 1  0 0  0  1 0 0
        1 1  0 0  0  1 1 0
        1 1  0 0  0  1 1 1
    """
    expected = [
        [0.0 if sees == "1" else torch.finfo(dtype).min for sees in row.split()] for row in seen.split("\n")[1:-1]
    ]
    assert mask.dtype == dtype and mask.tolist() == [[expected]]
    assert chat.packed_mask(2, [2, 1], dtype, torch.device("meta")).device.type == "meta"


def test_packs_hold_what_the_limit_allows_and_longer_rows_alone(monkeypatch):
    monkeypatch.setattr(chat, "PACK_LIMIT", 10)
    lengths = [4, 6, 4, 4, 3, 10, 1, 12, 2, 8]
    packs = chat.packs([[0] * length for length in lengths])
    assert [list(map(len, pack)) for pack in packs] == [[4, 6], [4, 4], [3], [10], [1], [12], [2, 8]]


def test_eager_attention_takes_the_same_mask(encoder, tokens):
    eager = tiny_qwen.model(tokens)
    eager.set_attn_implementation("eager")
    for a, b in zip(Encoder(eager, tokens).encode(PROMPTS, IMAGES), encoder.encode(PROMPTS, IMAGES), strict=True):
        assert difference(a, b) <= 1e-5


def test_bfloat16_weights_give_bfloat16_contexts(encoder, tokens):
    half = tiny_qwen.model(tokens).bfloat16()
    contexts = Encoder(half, tokens).encode(["a", "b c"], IMAGES[:1])
    for context, exact in zip(contexts, encoder.encode(["a", "b c"], IMAGES[:1]), strict=True):
        assert context.dtype == torch.bfloat16
        assert torch.nn.functional.cosine_similarity(context.float(), exact, dim=-1).min() > 0.99


def test_everything_is_made_where_the_model_is(tokens, monkeypatch):
    with torch.device("meta"):
        encoder = Encoder(tiny_qwen.model(tokens), tokens)
    taken = []

    def stop(_module, arguments, more):  # transformers looks into masks and grids, which have no values here
        taken.extend(each for each in (*arguments, *more.values()) if isinstance(each, torch.Tensor))
        raise StopIteration

    for texts, images in [(["a"], IMAGES[:1]), (["a", "b c"], ())]:
        with pytest.raises(StopIteration), encoder.backbone.register_forward_pre_hook(stop, with_kwargs=True):
            encoder.encode(texts, images)
    assert len(taken) == 5 + 3 and {tensor.device.type for tensor in taken} == {"meta"}
    encoder.model.lm_head.to_empty(device="cpu")  # as if it were loaded
    given = []
    reply = Reply("", 0, 0, whole=True)
    monkeypatch.setattr(
        answers, "generate", lambda _model, _chat, ids, vision, *_: given.extend([ids, vision]) or reply
    )
    encoder.answer(IMAGES[:1], "What is it?")
    ids, vision = given
    assert {tensor.device.type for tensor in (ids, *vision.tensors.values())} == {"meta"}


def test_vision_tower_and_prefix_run_once_and_the_language_head_never(encoder, model):
    calls = {"vision": 0, "head": 0, "tokens": 0}

    def count(name, amount=lambda args: 1):
        return lambda _module, args, _output: calls.__setitem__(name, calls[name] + amount(args))

    hooks = [
        model.model.visual.register_forward_hook(count("vision")),
        model.lm_head.register_forward_hook(count("head")),
        model.model.language_model.layers[0].mlp.register_forward_hook(count("tokens", lambda args: args[0].shape[1])),
    ]
    contexts = encoder.encode(["make it red", "", "make it blue"], IMAGES)
    for hook in hooks:
        hook.remove()
    shared = len(encoder.chat.shared_ids([(8, 10), (11, 8)]))
    own = sum(len(context) + encoder.chat.prefix_length - shared for context in contexts)
    assert calls == {"vision": 1, "head": 0, "tokens": shared + own}


def test_nothing_is_left_on_the_model(encoder, model):
    encoder.encode(["a", "b"], IMAGES)
    assert not model.model.language_model.layers[-1]._forward_hooks


# --- literal text ---


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("images", [0, 1])
def test_ordinary_text_gets_the_tokens_of_the_plain_tokenizer(encoder, tokens, prompt, images):
    ids = encoder.chat.message_ids(prompts.CONDITIONING_SYSTEM, prompt, [(1, 1)] * images)
    assert ids == tokens(message(prompt, images))["input_ids"]


@pytest.mark.parametrize("token", tiny_qwen.SPECIAL + tiny_qwen.UNMARKED)
def test_control_tokens_in_user_text_are_ordinary_characters(encoder, tokens, token):
    text = f"a{token}\n{token} b"
    ids = encoder.chat.ids([text])
    assert not set(ids) & {tokens.convert_tokens_to_ids(t) for t in tiny_qwen.SPECIAL + tiny_qwen.UNMARKED}
    assert tokens.decode(ids) == text
    with_text, without = encoder.encode([text, ""], IMAGES[:1])
    assert len(with_text) - len(without) == len(ids)


def test_qwens_own_tokenizer_drops_34_tokens():
    folder = os.environ.get("JOYIMAGE_QWEN_TOKENIZER")
    if not folder or not Path(folder).is_dir():
        pytest.skip("JOYIMAGE_QWEN_TOKENIZER names no folder")
    tokens = AutoTokenizer.from_pretrained(folder)
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 4, "vocab_size": 151936}
    encoder = Encoder(tiny_qwen.model(tokens, **small), tokens)
    assert encoder.chat.prefix_length == 34
    for prompt in PROMPTS:
        ids = encoder.chat.message_ids(prompts.CONDITIONING_SYSTEM, prompt)
        assert ids == tokens(message(prompt, 0))["input_ids"]


# --- limits ---


def test_text_alone_keeps_its_first_2048_tokens(encoder, model, tokens):
    prompt = DIGITS[:2100]
    with pytest.warns(UserWarning, match=r"last 6\d tokens were cut"):
        (context,) = encoder.encode([prompt])
    assert len(context) == 2048
    assert difference(context, reference(model, tokens, prompt)[:2048]) <= 1e-5


def test_with_an_image_the_text_is_cut_and_never_the_image(encoder, model, tokens):
    room = 4096 - len(encoder.encode([""], IMAGES[:1])[0])
    with pytest.warns(UserWarning, match=f"last {len(DIGITS) - room} tokens were cut"):
        (context,) = encoder.encode([DIGITS], IMAGES[:1])
    assert len(context) == 4096
    assert difference(context, reference(model, tokens, DIGITS[:room], IMAGES[:1])) <= 1e-4


@pytest.mark.parametrize("over", [-1, 0, 1, 2])
@pytest.mark.parametrize("images", [0, 1])
def test_a_prompt_is_cut_by_what_is_over_the_limit_and_says_so_from_one_token_on(encoder, images, over):
    grids = [(4, 4)] * images
    shared = encoder.chat.shared_ids(grids)

    def whole(count):
        return encoder.chat.message_ids(prompts.CONDITIONING_SYSTEM, DIGITS[:count], grids)

    limit = 4096 if images else 2048  # of tokens after the system's
    room = limit + encoder.chat.prefix_length - len(whole(0))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ids = encoder.chat.prompt_ids(DIGITS[: room + over], shared)
    told = {1: ["its last 1 tokens were cut"], 2: ["its last 2 tokens were cut"]}.get(over, [])
    assert [str(each.message).removeprefix("the prompt is too long: ") for each in caught] == told
    expected = whole(room) if images else whole(room + over)[: encoder.chat.prefix_length + limit]
    assert ids == (whole(room + over) if over <= 0 else expected)


@pytest.mark.parametrize("count", [4095, 4096, 4097, 5000])
def test_a_question_keeps_its_first_4096_tokens(encoder, count):
    question = DIGITS[:count]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ids = encoder.chat.question_ids(prompts.CHAT_SYSTEM, question, [(4, 4)])
    told = [f"the question is too long: its last {count - 4096} tokens were cut"] if count > 4096 else []
    assert [str(each.message) for each in caught] == told
    assert ids == encoder.chat.message_ids(prompts.CHAT_SYSTEM, question[:4096], [(4, 4)])


@pytest.mark.parametrize("images", [0, 1])
def test_a_text_of_megabytes_is_dropped_before_it_becomes_tokens(encoder, monkeypatch, images):
    taken, ids = [], encoder.chat.ids

    def counted(pieces, *more):
        taken.append(sum(len(piece) for piece in pieces if isinstance(piece, str)))
        return ids(pieces, *more)

    monkeypatch.setattr(encoder.chat, "ids", counted)
    text = DIGITS * 400  # two million characters
    with pytest.warns(UserWarning, match="tokens and the 1,737,856 characters after them were cut"):
        encoder.encode([text], IMAGES[:images])
    with pytest.warns(UserWarning, match="tokens and the 1,737,856 characters after them were cut"):
        encoder.chat.question_ids(prompts.CHAT_SYSTEM, text)
    assert max(taken) < 64 * 4096 + 1000


@pytest.mark.parametrize(
    ("tokens", "characters", "told"),
    [
        (0, 0, []),
        (0, 1, []),
        (1, 0, ["too long: its last 1 tokens were cut"]),
        (1, 1, ["too long: its last 1 tokens and the 1 characters after them were cut"]),
    ],
)
def test_a_cut_is_told_from_the_first_token_and_character_on(tokens, characters, told):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        chat.warn_of_cut("too long", tokens, characters)
    assert [str(each.message) for each in caught] == told


@pytest.mark.parametrize("text", ["half a pair \ud800", "a Latin-1 byte \udce9"])
def test_text_that_is_no_unicode_is_refused(encoder, text):
    with pytest.raises(JoyImageError, match=r"a prompt holds '.*' at place"):
        encoder.encode([text])
    with pytest.raises(JoyImageError, match=r"the question holds '.*' at place"):
        encoder.answer((), text)


def test_images_over_the_limit_lose_nothing_and_leave_512_tokens_of_text(encoder, monkeypatch):
    whole = encoder.encode(["make it red"], IMAGES)[0]
    longest = encoder.encode([DIGITS[:512]], IMAGES)[0]
    monkeypatch.setattr(chat, "IMAGE_LIMIT", 100)  # the two images take 168
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(encoder.encode(["make it red"], IMAGES)[0], whole)
    with pytest.warns(UserWarning, match="last 88 tokens"):
        assert torch.equal(encoder.encode([DIGITS[:600]], IMAGES)[0], longest)


# --- images ---


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (3, 5), (3, 600), (40, 4000)])
def test_any_size_of_image_works(encoder, size):
    (context,) = encoder.encode(["what is this"], [Image.new("RGB", size, "red")])
    assert torch.isfinite(context).all()


def test_pixels_are_scaled_to_one_and_patched_in_merged_blocks(encoder):
    vision = encoder.vision.read(IMAGES[:1], encoder.device)
    scaled = torch.from_numpy(np.array(IMAGES[0])) / 127.5 - 1
    blocks = rearrange(scaled, "(h a p) (w b q) c -> (h w a b) c 1 (p q)", a=2, b=2, p=16, q=16)
    assert vision.grids == [(8, 10)]
    assert difference(vision.tensors["pixel_values"], blocks.expand(-1, -1, 2, -1).flatten(1)) <= 1e-6


@pytest.mark.parametrize(
    ("images", "says"), [([np.zeros((8, 8, 3))], "not a Pillow image"), ([Image.new("RGB", (300, 1))], "200 times")]
)
def test_unusable_images_are_named(encoder, images, says):
    with pytest.raises(JoyImageError, match=says):
        encoder.encode(["a"], images)


@pytest.mark.parametrize("given", ["make it red", ["make it red", None]])
def test_prompts_are_a_list_of_strings(encoder, given):
    with pytest.raises(JoyImageError, match="list of strings"):
        encoder.encode(given)


# --- answers ---


@pytest.mark.parametrize("images", [0, 1, 2])
def test_greedy_answer_equals_plain_generation(encoder, model, tokens, images):
    inputs = inputs_of(tokens, message("what is it?", images, prompts.CHAT_SYSTEM), IMAGES[:images])
    ids = model.generate(**inputs, max_new_tokens=12, do_sample=False, eos_token_id=tokens.eos_token_id)
    expected = tokens.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert encoder.answer(IMAGES[:images], "what is it?", max_new_tokens=12, temperature=0) == expected


def test_sampling_depends_on_the_seed_alone(encoder):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    answers = [encoder.answer(IMAGES[:1], "what?", max_new_tokens=12, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert answers[0] == answers[1] != answers[2]


def test_a_checkpoints_generation_defaults_do_not_interfere(encoder, model, monkeypatch):
    greedy = encoder.answer([], "what?", max_new_tokens=12, temperature=0)
    for name, value in {"do_sample": True, "temperature": 5.0, "top_k": 3, "top_p": 0.1}.items():
        monkeypatch.setattr(model.generation_config, name, value)
    assert encoder.answer([], "what?", max_new_tokens=12, temperature=0) == greedy


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-5}])
def test_narrow_sampling_is_greedy(encoder, narrow):
    greedy = encoder.answer([], "what?", max_new_tokens=12, temperature=0)
    assert encoder.answer([], "what?", max_new_tokens=12, **{"top_k": 0, "top_p": 1, "seed": 3, **narrow}) == greedy


@pytest.mark.parametrize("images", [[], IMAGES[:1]], ids=["text", "image"])
def test_likelihoods_are_those_of_transformers_logits(encoder, model, tokens, images):
    choices = ["yes", "no", "a longer answer, 把帽子"]
    found = encoder.likelihoods(images, "Is it red?", choices)
    each = encoder.likelihoods(images, "Is it red?", choices, per_token=True)
    question = message("Is it red?", len(images), prompts.CHAT_SYSTEM)
    for choice, log, mean in zip(choices, found, each, strict=True):
        before = inputs_of(tokens, question, images)
        whole = inputs_of(tokens, f"{question}{choice}<|im_end|>", images)
        start = before["input_ids"].shape[1]
        with torch.inference_mode():
            logs = model(**whole).logits[0].log_softmax(-1)
        ids = whole["input_ids"][0]
        expected = sum(logs[place - 1, ids[place]].item() for place in range(start, len(ids)))
        assert log == pytest.approx(expected, abs=1e-3)
        assert mean == pytest.approx(expected / (len(ids) - start), abs=1e-3)


@pytest.mark.parametrize("choices", [[], ["yes", " "]])
def test_likelihoods_are_of_answers_that_say_something(encoder, choices):
    with pytest.raises(JoyImageError, match="answers to choose from"):
        encoder.likelihoods([], "Is it red?", choices)


def test_streamed_pieces_add_up_to_the_answer(encoder):
    pieces = []
    answer = encoder.answer([], "what?", max_new_tokens=60, temperature=2, top_k=0, top_p=1, on_text=pieces.append)
    assert len(pieces) > 1
    assert "".join(pieces) == answer
    assert answer == encoder.answer([], "what?", max_new_tokens=60, temperature=2, top_k=0, top_p=1)


def test_a_callback_ends_the_answer(encoder):
    pieces = []

    def once(piece):
        pieces.append(piece)
        return False

    whole = encoder.answer([], "what?", max_new_tokens=60, temperature=2, top_k=0, top_p=1)
    answer = encoder.answer([], "what?", max_new_tokens=60, temperature=2, top_k=0, top_p=1, on_text=once)
    assert [answer] == pieces
    assert whole.startswith(answer) and len(answer) < len(whole)


def test_what_a_callback_raises_comes_through(encoder):
    def fail(piece):
        raise ZeroDivisionError(piece)

    with pytest.raises(ZeroDivisionError):
        encoder.answer([], "what?", max_new_tokens=8, on_text=fail)


@pytest.mark.parametrize("token", ["<|im_end|>", "<|endoftext|>"])
def test_an_answer_ends_at_its_end_token(tokens, token):
    ending = tiny_qwen.model(tokens)
    end = torch.tensor([tokens.convert_tokens_to_ids(token)])
    ending.lm_head.register_forward_hook(lambda _module, _args, logits: (logits * 0).index_fill(-1, end, 1.0))
    assert Encoder(ending, tokens).answer([], "what?", temperature=0) == ""


@pytest.mark.parametrize("question", [None, "", " \n"])
def test_no_question_asks_for_a_description(encoder, question):
    options = {"max_new_tokens": 8, "temperature": 0}
    described = encoder.answer(IMAGES[:1], "Describe this image in detail.", **options)
    assert encoder.answer(IMAGES[:1], question, **options) == described
    with pytest.raises(JoyImageError, match="no image"):
        encoder.answer([], question, **options)


def test_questions_are_literal_too(encoder, tokens):
    inputs = []
    hook = encoder.backbone.register_forward_pre_hook(
        lambda _module, _args, kwargs: inputs.append(kwargs["input_ids"]), with_kwargs=True
    )
    encoder.answer([], "<|im_end|>", max_new_tokens=1)
    hook.remove()
    assert inputs[0].eq(tokens.convert_tokens_to_ids("<|im_end|>")).sum() == 2  # of the system's and the user's turn


@pytest.mark.parametrize(
    "bad",
    [
        {"max_new_tokens": 0},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_p": 0},
        {"top_p": 1.1},
        {"top_k": -1},
    ],
)
def test_sampling_parameters_out_of_range_are_named(encoder, bad):
    with pytest.raises(JoyImageError, match=next(iter(bad))):
        encoder.answer([], "what?", **bad)


def test_a_model_without_language_head_encodes_but_does_not_answer(encoder, model, tokens):
    bare = Encoder(model.model, tokens)
    assert torch.equal(bare.encode(["a"], IMAGES)[0], encoder.encode(["a"], IMAGES)[0])
    with pytest.raises(JoyImageError, match="language head"):
        bare.answer([], "what?")


@pytest.mark.parametrize("images", [0, 1])
def test_rewriting_asks_with_its_own_system_text(encoder, images):
    options = {"max_new_tokens": 8, "temperature": 0}
    expected = encoder.answer(IMAGES[:images], "a hat", system=prompts.rewriting_system(images > 0), **options)
    assert encoder.answer_rewrite("a hat", IMAGES[:images], **options) == expected


@pytest.mark.parametrize(
    ("reply", "prompt"),
    [
        ('{"Rewritten": "a red hat"}', "a red hat"),
        ('Sure:\n```json\n{"Rewritten": " a red hat\\n"}\n```', "a red hat"),
        ('<think>{"a": 1}</think>{"Rewritten": "a \\"SALE\\" sign", "n": 2}', 'a "SALE" sign'),
        ('{"Rewritten": "a "SALE" sign\non a \\"door\\""}', 'a "SALE" sign\non a "door"'),
        ('{"Rewritten": "红帽子"}', "红帽子"),
        ('{"Rewritten": ""}', None),
        ('{"Rewritten": 3}', None),
        ('{"Rewritten": "cut of', None),
        ("a red hat", None),
        ("", None),
    ],
)
def test_a_rewritten_prompt_is_found_in_the_reply(reply, prompt):
    assert prompts.parse_rewritten(reply) == prompt


# --- wrong tokenizers ---


def test_a_tokenizer_without_control_tokens_is_refused(model):
    with pytest.raises(CheckpointError, match=r"wrong tokenizer.*<\|im_start\|>.*<\|image_pad\|>"):
        Encoder(model, ByT5Tokenizer())


def test_a_slow_tokenizer_is_refused():
    with pytest.raises(CheckpointError, match="fast"):
        chat.literal_tokenizer(ByT5Tokenizer())


def test_control_tokens_with_other_ids_are_refused(model, tokens, monkeypatch):
    monkeypatch.setattr(model.model.config, "image_token_id", 7)
    with pytest.raises(CheckpointError, match=r"wrong tokenizer: <\|image_pad\|> is token \d+, the model expects 7"):
        Encoder(model, tokens)


def test_tokens_beyond_the_embedding_are_refused(tokens):
    small = tiny_qwen.model(tokens, vocab_size=340)
    with pytest.raises(CheckpointError, match="has token 341, the model's table ends at 339"):
        Encoder(small, tokens)


def test_attention_that_takes_no_mask_is_refused(tokens):
    flash = tiny_qwen.model(tokens)
    flash.model.language_model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(CheckpointError, match="sdpa"):
        Encoder(flash, tokens)
