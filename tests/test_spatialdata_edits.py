"""Edit pairs of drawn scenes: the model's sentences against the motions and changes that are true."""

from dataclasses import replace

import numpy as np
import pytest

from joyimage import spatial
from joyimage.spatialdata.edits import camera_pair, camera_pairs, object_pairs
from joyimage.spatialdata.index import index_scene
from joyimage.spatialdata.readers import read_scenes
from tools.tiny import captures
from tools.tiny import scenes as world

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    captures.make(folder, 3, seed=5)
    return [index_scene(scene) for scene in read_scenes(folder)]


def orbit(eye):
    """Azimuth and elevation in degrees, and distance, of a drawn camera."""
    x, y, z = eye - world.LOOK_AT
    distance = np.linalg.norm(eye - world.LOOK_AT)
    return np.degrees(np.arctan2(x, -y)), np.degrees(np.arcsin(z / distance)), distance


def test_camera_pairs_say_the_true_motion(drawn):
    made = 0
    for index in drawn:
        for pair in camera_pairs(index):
            before, after = (orbit(index.frames[view].camera.centre) for view in (pair.first, pair.second))
            told = spatial.parse(pair.text).instruction
            assert abs((told.yaw - after[0] + before[0] + 180) % 360 - 180) < 0.51
            assert abs(told.pitch - after[1] + before[1]) < 0.51
            assert after[2] / before[2] == pytest.approx(world.ZOOM[told.zoom], rel=0.01)
            made += 1
    assert made > 30


def test_moves_that_the_sentence_cannot_say_are_not_made(drawn):
    unsaid = 0
    for index in drawn:
        for first in range(len(index.frames)):
            for second in range(len(index.frames)):
                near, far = (orbit(index.frames[view].camera.centre)[2] for view in (first, second))
                if max(near / far, far / near) > 1.5:  # from near to far, over what lies between
                    assert camera_pair(index, first, second) is None
                    unsaid += 1
        assert camera_pair(index, 0, 0) is None
    assert unsaid


def test_pairs_are_limited_and_the_seed_orders_them(drawn):
    def views(seed, limit=5):
        return [(pair.first, pair.second) for pair in camera_pairs(drawn[0], limit, seed)]

    assert len(views(0)) == 5 and views(0) == views(0) != views(1)
    assert len(set(views(0, None))) == len(views(0, None)) > 5


@pytest.mark.parametrize("kind", [world.CUBE, world.CAR])
def test_two_states_give_moves_and_rotations(tmp_path, kind):
    generator = np.random.default_rng(2)
    scene = world.draw(1, generator, kind=kind, numbers=np.array([0, 1, 0, 0]))
    states = captures.changed(scene, generator, 6)
    for name, views in zip(("before", "after"), states, strict=True):
        captures.write(tmp_path / name, views)
    before, after = (index_scene(next(read_scenes(tmp_path / name))) for name in ("before", "after"))
    pairs = list(object_pairs(before, after))
    assert pairs
    shown, _ = world.shown_view(states[1])
    for pair in pairs:
        assert pair.number == 1
        told = spatial.parse(pair.text).instruction
        assert told == pair.instruction and told.object == scene.name(0)
        if kind == world.CAR:
            assert isinstance(told, spatial.Rotate) and told.view == world.VIEWS[shown[pair.view]] and pair.box is None
        else:
            rows, columns = np.nonzero(after.frames[pair.view].numbers == 1)
            assert isinstance(told, spatial.Move)
            assert pair.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert not list(object_pairs(before, before))
    swapped = before.scene.with_objects(tuple(replace(t, box=before.things[0].box) for t in before.scene.objects))
    assert not list(object_pairs(index_scene(swapped), after))  # two objects differ
