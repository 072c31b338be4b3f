"""Draws the icon and the banner anew, and carries the repository's address to where it is shown."""

from __future__ import annotations

import argparse

from . import BANNER, ICON, ROOT, address, pictures


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.registry", description=__doc__)
    parser.add_argument("--address", help="of the repository, such as https://github.com/OWNER/NAME; '' for none")
    options = parser.parse_args()
    try:
        address.carry(address.read(ROOT) if options.address is None else options.address, ROOT)
    except ValueError as error:
        parser.error(str(error))
    for path, picture in ((ICON, pictures.icon()), (BANNER, pictures.banner())):
        picture.save(ROOT / path, optimize=True)
        print(f"{path.as_posix():<28}{(ROOT / path).stat().st_size / 1000:>6.0f} kB")


if __name__ == "__main__":
    main()
