"""What the Comfy registry shows of the pack, and where it is told to look: `python -m tools.registry --help`."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = Path("tools/registry")  # seen from the root, since the pictures' addresses are made of it too
ICON, BANNER = FOLDER / "icon.png", FOLDER / "banner.png"
ADDRESS = FOLDER / "address.txt"  # the one place where the repository's address is kept; empty until it has one
