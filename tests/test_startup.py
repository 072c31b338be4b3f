"""What start-up waits for: transformers, the slowest of all imports, only where there is an encoder."""

import subprocess
import sys

import pytest
import transformers

from joyimage import JoyImage
from joyimage.encoder import Encoder
from joyimage.tiny import FOLDER

IMPORTS = (
    "from joyimage import Conditioning, JoyImage",
    "from joyimage import mmdit, rendering, sampling, spatial, vae",
    "from joyimage.checkpoints import convert, inspect, load_encoder, load_mmdit, load_vae",
    "from joyimage.encoder import Encoder",
    "from joyimage import tiny; tiny.mmdit(), tiny.vae()",
)
SLOW = ("transformers", "tokenizers", "torch._dynamo", "torch.distributed.tensor", "sympy")


@pytest.mark.parametrize("imports", IMPORTS)
def test_nothing_but_an_encoder_needs_transformers(imports):
    code = f"import sys; {imports}; print(*(sys.modules.keys() & set(sys.argv[1:])))"
    done = subprocess.run([sys.executable, "-c", code, *SLOW], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_bundled_encoder_is_that_of_transformers():
    encoder = JoyImage.load("tiny").encoder
    assert type(encoder) is Encoder
    assert type(encoder.model) is transformers.Qwen3VLForConditionalGeneration


def collector_after(call: str) -> tuple[bool, int, int]:
    """Whether the collector's thresholds are as before a command, the first of them, and how many objects it skips."""
    code = (
        f"import gc, sys; before = gc.get_threshold(); from joyimage.cli import main; code = {call}; "
        "print(gc.get_threshold() == before, gc.get_threshold()[0], gc.get_freeze_count()); sys.exit(code)"
    )
    command = [sys.executable, "-c", code, "inspect", str(FOLDER / "mmdit.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    same, threshold, skipped = done.stdout.splitlines()[-1].split()
    return same == "True", int(threshold), int(skipped)


def test_the_command_line_lets_the_collector_rest():
    """Looking for cycles among the million objects of imports took over a quarter of an edit's processor time."""
    same, threshold, skipped = collector_after("main()")
    assert not same and threshold > 10_000 and skipped > 10_000


def test_within_another_program_the_collector_is_left_alone():
    same, _, skipped = collector_after("main(sys.argv[1:])")
    assert same and skipped == 0
