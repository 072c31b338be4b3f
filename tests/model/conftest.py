"""The bundled model, whose weights are what these tests are about."""

import pytest

from joyimage import JoyImage


@pytest.fixture(scope="session")
def model() -> JoyImage:
    return JoyImage.load("tiny", device="cpu")
