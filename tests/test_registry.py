"""What the Comfy registry gets: the archive, the pictures, and the repository's address where one is given."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from tools.registry import ADDRESS, BANNER, ICON, ROOT, address

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:GitWildMatchPattern"),  # comfy-cli still calls pathspec's rule so
]
FOLDERS = {"joyimage", "locales", "nodes", "subgraphs", "web", "workflows"}
FILES = {"LICENSE", "README.md", "__init__.py", "pyproject.toml", "requirements.txt"}
WELCOME = ("LICENSE", "NOTICE", "CHANGELOG")  # beginnings of names that may stand beside them
MAX_BYTES = 16_000_000  # of the archive: 13.8 MB when this was written, 12.5 of them the bundled model
MAX_ICON, MAX_BANNER = 100_000, 400_000
GITHUB, GITLAB = "https://github.com/someone/ComfyUI-JoyImage", "https://gitlab.com/someone/joyimage"
ALONE = """
import sys
from pathlib import Path
import joyimage
from joyimage import demo
assert Path(joyimage.__file__).is_relative_to(sys.argv[1]), joyimage.__file__
assert all(example.picture().size == (64, 64) for example in demo.EXAMPLES)
(picture,) = joyimage.JoyImage.load("tiny").edit(demo.EXAMPLES[0].picture(), demo.EXAMPLES[0].instruction, steps=1)
print(picture.size)
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """The archive as `comfy node pack` makes it, of the files that git tracks."""
    file_utils = pytest.importorskip("comfy_cli.file_utils")
    if not (ROOT / ".git").exists():
        pytest.skip("comfy-cli packs what git tracks, and this is no checkout")
    path = tmp_path_factory.mktemp("registry") / "node.zip"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)  # it looks for .comfyignore and for git here
        file_utils.zip_files(path)
    return path


@pytest.fixture
def copies(tmp_path) -> Path:
    """A folder with the files that hold the address."""
    for name in ("pyproject.toml", "README.md", ADDRESS):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def names(archive: Path) -> set[str]:
    return set(zipfile.ZipFile(archive).namelist())


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def configuration(folder: Path):
    """What comfy-cli reads of pyproject.toml and sends to the registry."""
    parser = pytest.importorskip("comfy_cli.registry.config_parser")
    return parser.extract_node_configuration(str(folder / "pyproject.toml"))


def test_nothing_but_what_runs_is_packed(archive):
    found = {name.split("/")[0] for name in names(archive)}
    others = {name for name in found - FOLDERS - FILES if not name.startswith(WELCOME)}
    assert not others, f"name them in .comfyignore, or here where they are needed to run: {others}"
    assert [name for name in names(archive) if name.endswith(".d.ts")] == []


def test_all_that_runs_is_packed(archive):
    """With -z git names files as they are: those it would quote, for letters beyond ASCII, comfy-cli does not find."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    running = {name for name in tracked.split("\0") if name.split("/")[0] in FOLDERS | FILES}
    running = {name for name in running if not name.endswith(".d.ts")}
    assert running <= names(archive)
    assert {name.split("/")[0] for name in running} == FOLDERS | FILES


def test_the_archive_is_small(archive):
    assert archive.stat().st_size < MAX_BYTES


def test_the_unpacked_library_works_alone(archive, tmp_path):
    pack = tmp_path / "pack"
    zipfile.ZipFile(archive).extractall(pack)
    command = [sys.executable, "-c", ALONE, pack]
    environment = os.environ | {"PYTHONPATH": str(pack)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "(64, 64)\n"), done.stderr


def test_a_wheel_holds_the_model_and_says_that_it_is_typed(archive, tmp_path):
    pytest.importorskip("setuptools", minversion="77")
    pack = tmp_path / "pack"
    zipfile.ZipFile(archive).extractall(pack)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(tmp_path)]
    done = subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(pack)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert {"joyimage/py.typed", "joyimage/tiny/mmdit.safetensors"} <= names(wheel)


def test_the_pictures_are_what_the_registry_asks_for():
    icon, banner = Image.open(ROOT / ICON), Image.open(ROOT / BANNER)
    assert icon.size == (400, 400)
    assert banner.width * 9 == banner.height * 21
    assert (ROOT / ICON).stat().st_size < MAX_ICON and (ROOT / BANNER).stat().st_size < MAX_BANNER
    assert all((255, 0, 0) in [colour for _, colour in p.convert("RGB").getcolors(1 << 24)] for p in (icon, banner))


def test_the_files_say_what_the_one_place_says(copies):
    before = contents(copies)
    address.carry(address.read(copies), copies)
    assert contents(copies) == before


def test_without_an_address_nothing_is_invented(copies):
    address.carry("", copies)
    found = configuration(copies)
    assert found.project.urls.repository == found.project.urls.issues == ""
    assert found.tool_comfy.icon == found.tool_comfy.banner_url == ""
    assert "`git clone` this repository" in (copies / "README.md").read_text()


@pytest.mark.parametrize(
    ("given", "issues", "raw"),
    [
        (GITHUB, f"{GITHUB}/issues", "https://raw.githubusercontent.com/someone/ComfyUI-JoyImage/HEAD"),
        (f"{GITHUB}.git", f"{GITHUB}/issues", "https://raw.githubusercontent.com/someone/ComfyUI-JoyImage/HEAD"),
        (f"{GITLAB}/", f"{GITLAB}/-/issues", f"{GITLAB}/-/raw/HEAD"),
    ],
)
def test_an_address_is_carried_everywhere(copies, given, issues, raw):
    as_published = configuration(copies).tool_comfy
    address.carry(given, copies)
    found = configuration(copies)
    assert found.project.urls.repository == address.read(copies) == given.removesuffix("/").removesuffix(".git")
    assert found.project.urls.issues == issues
    assert found.tool_comfy.icon == f"{raw}/tools/registry/icon.png"
    assert found.tool_comfy.banner_url == f"{raw}/tools/registry/banner.png"
    assert found.tool_comfy.display_name == as_published.display_name
    assert found.tool_comfy.publisher_id == as_published.publisher_id
    assert f"`git clone {address.read(copies)}`" in (copies / "README.md").read_text()


def test_carrying_twice_changes_nothing_and_no_address_takes_all_back(copies):
    address.carry("", copies)
    without = contents(copies)
    address.carry(GITHUB, copies)
    once = contents(copies)
    address.carry(GITHUB, copies)
    assert contents(copies) == once != without
    address.carry(GITLAB, copies)
    assert GITHUB.encode() not in b"".join(contents(copies).values())
    address.carry("", copies)
    assert contents(copies) == without


@pytest.mark.parametrize(
    "wrong", ["someone/joyimage", "http://github.com/a/b", "https://example.org/a/b", f"{GITHUB}/x"]
)
def test_other_addresses_are_refused_and_change_nothing(copies, wrong):
    before = contents(copies)
    with pytest.raises(ValueError, match="https://HOST/OWNER/NAME"):
        address.carry(wrong, copies)
    assert contents(copies) == before
