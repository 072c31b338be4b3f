"""The recipe of the bundled model, a few steps of it: repeatable, and not disturbed by being killed."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from transformers import PreTrainedTokenizerFast

from joyimage import JoyImage, tiny
from joyimage.config import WAN_LATENTS_MEAN, WAN_LATENTS_STD
from joyimage.encoder import Encoder
from joyimage.prompts import CONDITIONING_SYSTEM
from joyimage.spatialdata import margins
from joyimage.spatialdata.questions.form import Question
from joyimage.spatialdata.readers import read_scenes
from tools.tiny import captures, data, encoder, learn_spatial, questions, scenes, spatial_questions, training, vae
from tools.tiny.loop import Papers
from tools.tiny.render import render
from tools.tiny.scenes import SIZE
from tools.tiny.tasks import TASKS
from tools.tiny.tokens import tokenizer
from tools.tiny.training import Recipe

pytestmark = pytest.mark.slow


def losses(folder, name):
    return [json.loads(line)["loss"] for line in (folder / f"{name}.log.jsonl").read_text().splitlines()]


def fit_line(folder, **options):
    """A small regression, by the loop that trains the networks."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))

    def loss(step, generator):
        x = torch.randn(32, 4, generator=generator)
        value = (network(x) - x.sum(1, keepdim=True)).square().mean()
        return value, {"twice": 2 * value.item()}

    recipe = Recipe(steps=60, save_every=20, warm_up=5)
    return training.train("line", network, loss, recipe, folder, others=lambda name: name.startswith("2"), **options)


def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path):
    whole = fit_line(tmp_path / "whole")
    fit_line(tmp_path / "killed", stop_at=25)
    resumed = fit_line(tmp_path / "killed")
    assert losses(tmp_path / "whole", "line") == losses(tmp_path / "killed", "line")
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert losses(tmp_path / "whole", "line")[-1] < 0.3 * losses(tmp_path / "whole", "line")[0]
    assert (tmp_path / "whole" / "line.png").stat().st_size > 1000


def test_another_seed_does_not_go_on_from_the_checkpoint(tmp_path):
    fit_line(tmp_path, stop_at=20)
    with pytest.raises(SystemExit, match="is of seed 0, not 1"):
        fit_line(tmp_path, seed=1)


def test_updates_of_muon_are_orthogonal():
    matrices = torch.randn(3, 24, 60, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(training.newton_schulz(matrices))
    assert values.min() > 0.6 and values.max() < 1.3
    assert torch.linalg.svdvals(training.newton_schulz(matrices.mT)).allclose(values, atol=1e-4)


def test_the_vae_takes_wans_latent_statistics_without_changing_its_pictures():
    network = vae.build().eval().requires_grad_(False)
    images = torch.randint(256, (40, 64, 64, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    batch = data.to_images(images)
    before = network.decode(network.encode(batch))
    vae.standardise(network, images)
    latents = network.encode(batch).squeeze(2)  # normalised by Wan's numbers
    assert latents.mean((0, 2, 3)).abs().max() < 1e-3 and (latents.std((0, 2, 3)) - 1).abs().max() < 1e-3
    assert torch.allclose(network.decode(latents[:, :, None]), before, atol=1e-4)
    assert network.config.latents_mean == WAN_LATENTS_MEAN and network.config.latents_std == WAN_LATENTS_STD


def test_the_encoder_is_trained_on_what_the_library_feeds_it():
    """The fast path of training against `Encoder.encode` with its own image processor."""
    tokens = tokenizer(["Remove the red cube.", CONDITIONING_SYSTEM] * 2, 300)
    network: Encoder = encoder.build(tokens)
    network.model.eval()
    pixels = torch.from_numpy(render(scenes.draw(2, np.random.default_rng(0))).pixels)
    small = [Image.fromarray(picture) for picture in pixels.numpy()]
    large = np.stack([np.asarray(picture.resize((256, 256), Image.Resampling.BICUBIC)) for picture in small])
    levels = (encoder.enlarged(pixels) + 1) * 127.5 - torch.from_numpy(large).permute(0, 3, 1, 2)
    assert levels.abs().max() < 1.01  # Pillow and torch round apart

    pixels = torch.from_numpy(large)
    pictures = [Image.fromarray(picture) for picture in large]
    (expected,) = network.encode(["Remove the red cube."], pictures)
    ids = torch.tensor([network.chat.message_ids(CONDITIONING_SYSTEM, "Remove the red cube.", [(4, 4)] * 2)])
    with torch.no_grad():
        found = encoder.run(network, encoder.Batch(ids, pixels[None]))[0, network.chat.prefix_length :]
    assert (found - expected).norm() < 1e-5 * expected.norm()


@pytest.fixture(scope="module")
def source():
    """Of an encoder with random weights, and the questions on a few pictures."""
    made = questions.make(24, np.random.default_rng(0), every_object=True)
    network = encoder.build(PreTrainedTokenizerFast.from_pretrained(tiny.TOKENIZER))
    network.model.eval()
    return encoder.Source(network, torch.from_numpy(made.pixels), made.questions, {})


def test_questions_of_one_row_do_not_see_each_other(source):
    batch = source.questions(torch.Generator().manual_seed(0))
    with torch.no_grad():
        together = encoder.run(source.encoder, batch)
        for row, number in ((0, 1), (0, 3), (5, 2)):
            own = (batch.segments[row] == 0) | (batch.segments[row] == number)
            alone = encoder.run(
                source.encoder, encoder.Batch(batch.ids[row : row + 1, own], batch.images[row : row + 1])
            )
            assert (together[row, own] - alone[0]).norm() < 1e-5 * alone.norm()


def test_no_answer_is_told_from_combinations_that_are_held_out(source):
    """Else the encoder learns that there is no green car, and cannot name one."""
    tokens = source.encoder.tokenizer

    def rules(question: str, answer: str) -> list[str]:
        text, said = (source.encoder.chat.ids([words]) for words in (question, answer))
        barred = [source.barred[rule].nonzero()[:, 0].tolist() for rule in source.rules(text, said)]
        return [" ".join(sorted({tokens.decode([i]).strip() for i in some})) for some in barred]

    assert rules("What shape is the green object?", "cube") == ["car"]
    assert rules("What color is the car?", "red") == ["green"]
    assert rules("What color is the cube?", "green") == ["blue red"]
    assert rules("Which is nearer to the camera, the red car or the blue cone?", "the red car") == ["", "green", "cube"]
    assert rules("How many objects are there?", "3") == [""]
    # Of two objects that a question names, none is left out: that would tell that the other is the answer.
    assert rules("Which is bigger, the red car or the green cone?", "the red car") == ["", "", "cube"]
    assert rules("Which is bigger, the red car or the blue cube?", "the red car") == ["", "green", ""]
    for step in range(20):
        batch = source.questions(torch.Generator().manual_seed(step))
        told = batch.labels != encoder.IGNORED
        assert not source.barred[batch.rules[told], batch.labels[told]].any()
        for row, place in told.nonzero().tolist():
            question = (batch.segments[row] == batch.segments[row, place]) & ~told[row]
            assert not source.barred[batch.rules[row, place], batch.ids[row, question]].any()


def test_a_taught_encoder_comes_nearer_to_its_teachers_contexts(source, tmp_path):
    teacher, pupil = (encoder.build(source.encoder.tokenizer) for _ in range(2))
    with torch.no_grad():
        for parameter in teacher.backbone.parameters():
            parameter.mul_(1.5)
    teacher.model.eval().requires_grad_(False)
    pairs = {task: data.columns(TASKS[task](20, np.random.default_rng(0))) for task in ("remove", "generate")}
    pairs = {task: {k: v if k == "texts" else torch.from_numpy(v) for k, v in p.items()} for task, p in pairs.items()}
    asked = [[questions.Question("count", "How many objects are there?", "1")]] * len(source.pixels)
    taught = encoder.Source(pupil, source.pixels, asked, pairs)
    recipe = Recipe(steps=12, warm_up=2, matrix_rate=0.01, average=0.5, save_every=12)
    encoder.fit(pupil, taught, tmp_path, recipe, teacher)
    lines = [json.loads(line)["away"] for line in (tmp_path / "encoder.log.jsonl").read_text().splitlines()]
    assert np.mean(lines[-3:]) < 0.8 * np.mean(lines[:3])


def test_the_decoder_learns_on_and_leaves_the_latents_as_they_are(tmp_path):
    network = vae.build().eval().requires_grad_(False)
    images = torch.from_numpy(render(scenes.draw(40, np.random.default_rng(0))).pixels)
    batch = data.to_images(images[:8])
    latents = network.encode(batch)
    before = (network.decode(latents) - batch).square().mean()
    vae.refine(network, images, tmp_path, Recipe(steps=12, warm_up=2, average=0.5, save_every=12))
    assert torch.equal(network.encode(batch), latents)
    assert (network.decode(latents) - batch).square().mean() < 0.7 * before
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_spatial_questions_can_be_taught(tmp_path):
    """What is asked of the same pictures stands in one row, its answer among the options; training changes weights."""
    captures.make(tmp_path / "scenes", 8, shares=learn_spatial.CROWDED, views=(2, 2))
    asked = learn_spatial.ask_about(read_scenes(tmp_path / "scenes"))
    for kind, pictures in learn_spatial.PICTURES.items():
        assert len(asked[kind]) >= 4
        shown = [each.pictures for each in asked[kind]]
        assert all(len(some) == pictures and some[0].size == (SIZE, SIZE) for some in shown)
        assert all(each.question.said in each.question.options for each in learn_spatial.choices(asked[kind]))
    once = [each.question for each in learn_spatial.once(asked["relative_distance"])]
    facts = {(some.scene, some.views, some.about["from"], some.about["kind"]) for some in once}
    assert len(facts) == len(once) < len(asked["relative_distance"])
    assert len(learn_spatial.once(asked["camera_motion"])) == len(asked["camera_motion"])
    distances = learn_spatial.paper(asked["relative_distance"])
    assert len(distances.pictures) < sum(map(len, distances.questions)) == len(asked["relative_distance"])
    model = JoyImage.load("tiny")
    before = [weights.clone() for weights in model.encoder.model.parameters()]
    recipe = replace(learn_spatial.RECIPE, steps=2, share=0.02)
    lessons = {kind: (learn_spatial.Lesson(),) for kind in asked}
    learn_spatial.teach(model, asked, tmp_path / "work", recipe, lessons)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.encoder.model.parameters(), strict=True))
    assert all(bool(weights.isfinite().all()) for weights in model.encoder.model.parameters())


def test_pieces_of_a_batch_add_up_to_it(tmp_path):
    captures.make(tmp_path / "scenes", 6, shares=learn_spatial.CROWDED, views=(2, 2))
    asked = learn_spatial.ask_about(read_scenes(tmp_path / "scenes"))["relative_distance"]
    bundled = JoyImage.load("tiny").encoder
    source = encoder.Source(bundled, torch.empty(0), [], {})
    drawn = Papers(source, {"all": learn_spatial.paper(asked)})
    batch = drawn.draw("all", torch.Generator().manual_seed(0), 10, 3)
    weights = bundled.model.lm_head.weight.requires_grad_(True)
    whole, _ = encoder.answering(bundled, batch, source.barred)
    (expected,) = torch.autograd.grad(whole, weights)
    found = torch.zeros_like(expected)
    shares = []
    for piece, share in learn_spatial.pieces(batch, 4):
        answers, _ = encoder.answering(bundled, piece, source.barred)
        found += share * torch.autograd.grad(answers, weights)[0]
        shares.append(share)
    assert len(shares) == 3 and sum(shares) == pytest.approx(1)
    tolerance = 0.02 if training.FAST_HALF else 1e-5  # bf16 rounds sums of other lengths in other ways
    assert (found - expected).norm() <= tolerance * expected.norm()


def test_what_options_tell_is_counted():
    def question(answer, *options):
        return Question("t", "s", (0,), "en", "choice", "?", answer, options)

    one_part_off = [
        "yaw 1, pitch 2, zoom in",
        "yaw -1, pitch 2, zoom in",
        "yaw 1, pitch -2, zoom in",
        "yaw 1, pitch 2, out",
    ]
    told = [question("A", *one_part_off)] * 3
    assert spatial_questions.guessed(told)["most alike"] == pytest.approx(0.75)
    even = [question(letter, "yaw 1, in", "yaw 2, in", "yaw 1, on", "yaw 2, on") for letter in "ABCD"]
    assert set(spatial_questions.guessed(even).values()) == {0}
    assert spatial_questions.guessed([question("B", "left", "right")])["longest"] == 0.5
    assert spatial_questions.guessed([]) == {}


def test_what_texts_tell_to_who_has_read_others_is_counted():
    def asked(right, place, options=("1", "2", "3", "4"), **about):
        letter = "ABCD"[options.index(right)]
        return Question("t", f"scene{place}", (0,), "en", "choice", "?", letter, options, about=about)

    learned = spatial_questions.learned
    assert learned([asked("2", place) for place in range(40)]) == {"frequent option": 0.75}
    assert abs(learned([asked("1234"[place // 8 % 4], place) for place in range(4000)])["frequent option"]) < 0.03
    told = [asked(str(place % 4 + 1), place, given=place % 4) for place in range(80)]
    assert learned(told) == {"frequent option": 0.75}
    opened = [Question("t", f"scene{place}", (0,), "en", "open", "?", "2") for place in range(40)]
    assert learned(opened) == {"frequent answer": 1.0} and learned(opened[:1]) == learned([]) == {}


def test_lessons_begin_with_what_is_clearly_nearer(tmp_path):
    captures.make(tmp_path / "scenes", 8, shares=learn_spatial.CROWDED, views=(2, 2))
    asked = learn_spatial.ask_about(read_scenes(tmp_path / "scenes"))["relative_distance"]
    kinds = [each.question.about["kind"] for each in asked]
    assert set(kinds) == {"nearer", "farther"} and all(each.factor >= margins.DISTANCE for each in asked)
    first = learn_spatial.Lesson(factor=1.8, farther=0).chosen(asked)
    assert 0 < len(first) < len(asked)
    assert all(each.question.about["kind"] == "nearer" and each.factor >= 1.8 for each in first)
    half = [each.question.about["kind"] for each in learn_spatial.Lesson(farther=0.5).chosen(asked)]
    assert half.count("nearer") == kinds.count("nearer")
    assert half.count("farther") == round(kinds.count("farther") / 2)
