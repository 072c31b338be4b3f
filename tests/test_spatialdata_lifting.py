"""Boxes from masks and depth, on drawn scenes whose boxes are true."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from joyimage.errors import JoyImageError
from joyimage.spatialdata.association import same_numbers
from joyimage.spatialdata.cameras import Pinhole, looking_at
from joyimage.spatialdata.clouds import eroded, smooth_depth, without_outliers
from joyimage.spatialdata.consistency import Cycle, Observation, agreement, agreements, consistent, held
from joyimage.spatialdata.lifting import Lifting, lift, lift_object, observations
from joyimage.spatialdata.oriented import OrientedBox
from joyimage.spatialdata.readers import read_scenes
from joyimage.spatialdata.scenes import Scene, SceneObject, Sensed, View
from tools.tiny import captures
from tools.tiny import lifting as measured
from tools.tiny import scenes as world

pytestmark = pytest.mark.slow
COUNT = 6


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    captures.make(folder, COUNT, seed=1)
    return list(read_scenes(folder))


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def bare(scene):
    return scene.with_objects(tuple(replace(thing, box=None) for thing in scene.objects))


def test_boxes_are_lifted_and_agree_with_their_masks(drawn):
    found = measured.measure(drawn)
    exact, disturbed = found["exact"], found["disturbed"]
    assert exact["well seen"] >= COUNT and exact["mean IoU"] >= 0.85 and exact["right boxes kept"] >= 0.95
    assert disturbed["mean IoU"] >= 0.7 and disturbed["right boxes kept"] >= 0.95
    assert exact["wrongly merged"] and exact["wrongly merged dropped"] >= 0.95
    assert disturbed["wrongly merged dropped"] >= 0.95


def test_pairs_of_views_say_how_the_camera_moved(drawn):
    found = measured.motions(drawn, pairs=40)
    assert found["pairs said"] == 40 and found["sentences wrong"] == 0 and found["worst degrees or percent"] < 1e-3
    assert found["not said"] > 0  # two zooms at once


def test_lifted_objects_keep_number_category_and_words(drawn):
    lifted = lift(bare(drawn[0])).scene
    assert lifted.lifted and lifted.views == drawn[0].views
    for thing, truth in zip(lifted.objects, drawn[0].objects, strict=True):
        assert (thing.number, thing.category, thing.description) == (truth.number, truth.category, truth.description)


def test_masks_depth_and_poses_can_be_made(drawn):
    """Masks with numbers that differ from view to view, and nothing read from the scene's own files."""
    scene = next(scene for scene in drawn if len(scene.objects) > 1)
    truth = {view.name: (view.sensed(), view.camera) for view in scene.views}
    somewhere = Pinhole(scene.views[0].camera.intrinsic, np.eye(4), 128, 128)
    empty = tuple(replace(v, depth=None, instances=None, camera=somewhere) for v in scene.views)

    def masks(view):
        numbers = truth[view.name][0].instances
        return np.where(numbers > 0, 40 - numbers * (1 + int(view.name) % 3), 0)

    lifted = lift(
        replace(scene, views=empty, objects=()),
        masks=masks,
        depth=lambda view: truth[view.name][0].depth,
        poses=lambda views: [truth[view.name][1] for view in views],
    )
    assert len(lifted.scene.objects) == len(scene.objects)
    for thing in lifted.scene.objects:
        assert thing.category == "object"
        assert max(measured.overlap(thing.box, true) for true in scene.objects) > 0.6


def test_what_is_missing_is_named(drawn):
    view = drawn[0].views[0]
    with pytest.raises(JoyImageError, match="000 has no instance masks"):
        lift(Scene("a", (replace(view, instances=None),)))
    with pytest.raises(JoyImageError, match="000 has no depth"):
        lift(Scene("a", (replace(view, depth=None),)))
    with pytest.raises(JoyImageError, match="0 poses were made for 1 views"):
        lift(Scene("a", (view,)), poses=lambda views: [])
    for poses in (None, np.eye(4)[None], [np.eye(4)]):
        with pytest.raises(JoyImageError, match="poses must give a `Pinhole` for each view"):
            lift(Scene("a", (view,)), poses=lambda views, poses=poses: poses)
    for made in ({"depth": lambda view: [[1.0]]}, {"masks": lambda view: [[1]]}):
        with pytest.raises(JoyImageError, match="must be a file or an array, not list"):
            lift(Scene("a", (view,)), **made)
    with pytest.raises(JoyImageError, match="a name of scenes and views is text, not 5"):
        Scene(5, (view,))  # type: ignore[arg-type]


def test_masks_of_one_object_get_one_number_in_all_views(drawn, generator):
    scene = max(drawn, key=lambda scene: len(scene.objects))
    sensed = [view.sensed() for view in scene.views]
    shuffled = [replace(v, instances=np.r_[0, 1 + generator.permutation(4)][v.instances]) for v in sensed]
    numbered = same_numbers(shuffled)
    pairs = {
        (a, b)
        for v, w in zip(sensed, numbered, strict=True)
        for a, b in zip(*map(np.ravel, (v.instances, w.instances)), strict=True)
    }
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(scene.objects) + 1


def wall(distance=4.0, size=60, tilt=0.3):
    """A plane in front of a camera that looks along y: depth (size, size)."""
    camera = Pinhole(
        np.array([[size, 0, size / 2], [0, size, size / 2], [0, 0, 1.0]]),
        looking_at(np.zeros(3), np.array([0, 1, 0])),
        size,
        size,
    )
    across = (np.arange(size) + 0.5 - size / 2) / size
    return camera, np.tile(distance / (1 - tilt * across), (size, 1)).astype(np.float32)


def test_smoothing_keeps_planes_and_takes_noise_away(generator):
    _, plane = wall()
    mask = np.zeros(plane.shape, dtype=bool)
    mask[10:50, 15:55] = True
    quiet, noise = smooth_depth(plane, mask)
    assert noise < 1e-5 and (quiet == plane).all()
    noisy = plane * (1 + 0.01 * generator.standard_normal(plane.shape)).astype(np.float32)
    smooth, noise = smooth_depth(noisy, mask)
    inner = np.s_[15:45, 20:50]
    assert noise == pytest.approx(0.01, rel=0.15)
    assert np.abs(smooth - plane)[inner].mean() < 0.25 * np.abs(noisy - plane)[inner].mean()
    assert abs((smooth / plane)[inner].mean() - 1) < 1e-3 and (smooth[~mask] == noisy[~mask]).all()


def test_at_a_masks_edge_what_lies_behind_is_taken_out(generator):
    _, plane = wall(tilt=0)
    noisy = plane * (1 + 0.01 * generator.standard_normal(plane.shape)).astype(np.float32)
    mask = np.zeros(plane.shape, dtype=bool)
    mask[10:50, 15:55] = True
    noisy[20:40, 54] = 9
    smooth, _ = smooth_depth(noisy, mask)
    assert (smooth[20:40, 54] == 0).all() and (smooth[20:40, 53] > 0).all()


def test_smoothing_keeps_an_edge_within_a_mask(generator):
    _, plane = wall(tilt=0)
    plane[:, 30:] *= 1.5
    noisy = plane * (1 + 0.01 * generator.standard_normal(plane.shape)).astype(np.float32)
    smooth, _ = smooth_depth(noisy, np.ones(plane.shape, dtype=bool))
    assert np.abs(smooth / plane - 1).max() < 0.1  # the two planes' mean would be 0.2 off


def test_nothing_is_smoothed_without_depth_or_mask():
    _, plane = wall()
    assert smooth_depth(plane, np.zeros(plane.shape, bool))[1] == 0
    assert (smooth_depth(plane * 0, np.ones(plane.shape, bool))[0] == 0).all()


def test_a_mask_shrinks_by_a_pixel_but_not_at_the_pictures_edge():
    mask = np.zeros((5, 6), dtype=bool)
    mask[:4, 1:5] = True
    assert eroded(mask).sum() == 3 * 2 and eroded(mask)[0, 2]


def test_outliers_are_far_from_their_neighbours(generator):
    points = generator.uniform(0, 1, (300, 3))
    far = np.concatenate([points, [[5, 5, 5]]])
    kept = without_outliers(far, sigma=5)
    assert len(kept) >= 295 and kept.max() <= 1
    assert len(without_outliers(points[:8])) == 8


def cube(distance=5.0):
    """A cube of 1 m in front of a wall at twice the distance, seen straight on."""
    camera, depth = wall(2 * distance, 100, tilt=0)
    near = distance - 0.5
    half = int(0.5 * 100 / near)
    depth[50 - half : 50 + half, 50 - half : 50 + half] = near
    return camera, depth, depth < distance, OrientedBox.upright([0, distance, 0], [1, 1, 1])


def test_agreement_in_closed_form():
    camera, depth, mask, box = cube()
    cycle = Cycle(foot=0.0)
    assert (held(box, camera, depth, cycle) == mask).all()
    assert agreement(box, Observation(camera, depth, mask), cycle) == 1
    left = mask & (np.arange(100) < 50)
    assert agreement(box, Observation(camera, depth, left), cycle) == pytest.approx(0.5)
    twice = OrientedBox.upright([0.5, 5, 0], [2, 1, 1])
    assert agreement(twice, Observation(camera, depth, mask), cycle) == 1  # what it holds too much is empty
    aside = OrientedBox.upright([1, 5, 0], [1, 1, 1])
    assert agreement(aside, Observation(camera, depth, mask), cycle) < 0.2
    assert agreement(box, Observation(camera, depth * 0, mask), cycle) is None


def test_the_foot_of_a_box_counts_neither_way():
    camera, depth, mask, box = cube()
    foot = held(box, camera, depth, Cycle(foot=0.0)) & ~held(box, camera, depth, Cycle(foot=0.1))
    assert 0.05 < foot.sum() / mask.sum() < 0.15
    assert agreement(box, Observation(camera, depth, mask & ~foot), Cycle(foot=0.1)) == 1


@pytest.mark.parametrize(
    ("values", "stays"),
    [([0.9, 0.9], True), ([0.9], True), ([], False), ([0.5], False), ([0.9, 0.5], False), ([None, None, 0.9], True),
     ([0.9, 0.9, 0.9, 0.1], True), ([0.9, 0.9, 0.1, 0.1], False)],
)  # fmt: skip
def test_a_box_stays_where_most_views_agree(values, stays):
    assert consistent(values) is stays


def test_votes_of_other_views_take_out_what_a_mask_holds_too_much(drawn):
    scene = drawn[0]
    thing = scene.objects[0]
    seen = observations([view.sensed() for view in scene.views], thing.number)
    wide = seen[0].mask
    for _ in range(8):
        wide = ~eroded(~wide)
    views = [replace(seen[0], mask=wide), *seen[1:]]
    mended, taken = lift_object(thing, views), lift_object(thing, views, Lifting(votes=0.0))
    assert measured.overlap(mended.thing.box, thing) > measured.overlap(taken.thing.box, thing) + 0.1
    assert mended.kept and len(mended.points) < len(taken.points)


def test_of_many_points_some_are_taken_from_all_of_a_mask(drawn):
    seen = observations([view.sensed() for view in drawn[0].views], drawn[0].objects[0].number)
    few = lift_object(drawn[0].objects[0], seen, Lifting(most=100 * len(seen)))
    assert len(few.points) <= 100 * len(seen) and measured.overlap(few.thing.box, drawn[0].objects[0]) > 0.6


def test_an_object_that_no_view_shows_has_no_box(drawn):
    sensed = [view.sensed() for view in drawn[0].views]
    assert lift_object(SceneObject(9, "chair"), observations(sensed, 9)) is None


@pytest.mark.parametrize("kind", range(len(world.KINDS)))
def test_points_of_a_solids_surface_lie_on_it_and_not_on_its_foot(kind, generator):
    half = world.PROPORTIONS[kind]
    points = measured.surface(kind, half, generator, 4000) / half
    if kind == world.SPHERE:
        assert np.allclose(np.linalg.norm(points, axis=1), 1) and abs(points.mean(axis=0)).max() < 0.05
    elif kind in (world.CYLINDER, world.CONE):
        out = np.hypot(points[:, 0], points[:, 1])
        on_top = points[:, 2] > 1 - 1e-9
        assert np.allclose(out[~on_top], 1 if kind == world.CYLINDER else (1 - points[~on_top, 2]) / 2)
        assert out.max() <= 1 + 1e-9
    else:
        slack = [offset - points @ np.array(normal) for normal, offset in measured.SIDES[kind]]
        assert np.min(slack) > -1e-9 and np.allclose(np.min(slack, axis=0), 0, atol=1e-9)
        assert (points[:, 2] <= -1 + 1e-9).mean() < 0.01


def test_agreements_are_those_of_each_view():
    camera, depth, mask, box = cube()
    both = [Observation(camera, depth, mask), Observation(camera, depth * 0, mask)]
    assert [value is None for value in agreements(box, both)] == [False, True]


def test_arrays_can_be_views():
    camera, depth, mask, _ = cube()
    instances = mask.astype(np.uint8)
    picture = np.zeros((100, 100, 3), np.uint8)
    view = View("a", camera, Image.fromarray(picture), depth, instances)
    sensed = view.sensed()
    assert isinstance(sensed, Sensed) and (sensed.depth == depth).all() and view.picture().size == (100, 100)
    found = lift(Scene("room", (view,), (SceneObject(1, "cube"),)))
    assert np.allclose(found.found[0].thing.box.size[:3].max(), 1, atol=0.1)
