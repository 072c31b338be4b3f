"""A photograph for tests and measurements."""

from pathlib import Path

from PIL import Image

from joyimage.images import load


def photograph() -> Image.Image:
    """Astronaut Eileen Collins, NASA, 1998; public domain. 512 x 512."""
    return load(Path(__file__).parent / "astronaut.jpg")
