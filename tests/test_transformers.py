"""The bundled model on the transformers at hand, through all that calls it: nothing deprecated is used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import transformers

ROOT = Path(__file__).parents[1]

# In a process of its own: transformers says much of this only once. What others do on import is theirs.
CODE = """
import json, logging, warnings
import torch, transformers.models.qwen3_vl.modeling_qwen3_vl
from PIL import Image
from joyimage import JoyImage
from joyimage.boxes import locate_question, parse_boxes
from joyimage.demo import asset

said = []

class Keep(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())

logging.getLogger("transformers").addHandler(Keep(logging.WARNING))
for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
    warnings.simplefilter("error", category)

model, picture = JoyImage.load("tiny", device="cpu"), Image.new("RGB", (64, 64), "teal")
made = model.edit([picture, picture], "Remove it.", steps=2) + model.generate(["a cube", "a ball"], steps=1)
greedy = model.ask(picture, "What is it?", max_new_tokens=4, temperature=0)
drawn = [model.ask((), "What is it?", max_new_tokens=4, seed=3) for _ in range(2)]
scene = asset("move.png")
boxes = parse_boxes(model.ask(scene, locate_question("pink cylinder"), temperature=0), *scene.size)
print(json.dumps({"sizes": [each.size for each in made], "greedy": greedy, "drawn": drawn, "boxes": boxes,
                  "said": said}))
"""


# transformers asks the packages' metadata, once.
OLD_TORCH = """
import importlib.metadata, sys
import torch
version = importlib.metadata.version
importlib.metadata.version = lambda name: "2.1.0" if name == "torch" else version(name)
torch.__version__ = "2.1.0"
from joyimage.cli import main
sys.exit(main(["ask", "joyimage/assets/move.png", "What is it?"]))
"""


@pytest.mark.slow
@pytest.mark.skipif(transformers.__version__.startswith("4."), reason="it works with every torch that we do")
def test_a_torch_too_old_for_this_transformers_is_named():
    done = subprocess.run([sys.executable, "-c", OLD_TORCH], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "does not work with torch 2.1.0: install a newer torch, or transformers 4.57" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(transformers.__version__.startswith("4."), reason="it does not import torch's compiler")
def test_what_keeps_transformers_from_being_imported_is_no_fault_of_the_weights(tmp_path):
    """Torch's compiler makes its cache folder when it is imported."""
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "joyimage", "ask", "joyimage/assets/move.png", "What is it?"]
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "file" / "cache")}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 2, done.stderr
    assert "gives no Qwen3-VL (NotADirectoryError" in done.stderr
    assert "config.json" not in done.stderr and ".safetensors" not in done.stderr


@pytest.mark.slow
def test_load_edit_ask_and_locate_call_nothing_deprecated():
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["sizes"] == [[64, 64]] * 3 and result["said"] == []
    assert len(result["boxes"]) == 1
    assert result["greedy"] and result["drawn"][0] == result["drawn"][1]
