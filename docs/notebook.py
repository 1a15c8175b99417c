"""Runs the commands of `notebook.md` and writes what they print below them.

`python docs/notebook.py FOLDER [FIRST [LAST]]`: FOLDER is where they run; with FIRST (and LAST) only those run,
from 1 on. The pictures that the page shows are taken from FOLDER too: a comment ``<!-- FILE -->`` behind a picture says
which file it is.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from PIL import Image

PAGE = Path(__file__).with_name("notebook.md")
BLOCK = re.compile(r"```bash\n(?P<command>.*?)```\n\n```text\n(?P<output>.*?)```\n", re.S)
PICTURE = re.compile(r"!\[[^]]*\]\((?P<shown>[^)]*)\) <!-- (?P<made>\S+) -->")
WIDEST = 1100  # pixels of a picture


def with_outputs(page: str, run: Callable[[int, str, str], str]) -> str:
    """The text of the page with ``run(number, command, output of before)`` below each command."""
    numbers = iter(range(1, page.count("```bash") + 1))

    def block(found: re.Match[str]) -> str:
        output = run(next(numbers), found["command"], found["output"])
        return f"```bash\n{found['command']}```\n\n```text\n{output}```\n"

    return BLOCK.sub(block, page)


def printed(command: str, folder: Path) -> str:
    """What a command prints on a terminal of 100 columns. Raises CalledProcessError where it fails."""
    bare = os.environ | {
        "COLUMNS": "100",
        "NO_COLOR": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(["bash", "-ec", command], cwd=folder, env=bare, stdout=subprocess.PIPE, text=True, check=True)
    return "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines() if line.strip())


def take_pictures(page: str, folder: Path) -> None:
    """Copy the pictures of the page from where the commands wrote them, not larger than a screen shows."""
    for found in PICTURE.finditer(page):
        target = PAGE.parent / found["shown"]
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(folder / found["made"]) as image:
            if image.width <= WIDEST:
                shutil.copyfile(folder / found["made"], target)
            else:
                image.convert("RGB").resize((WIDEST, round(image.height * WIDEST / image.width))).save(target)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.mkdir(parents=True, exist_ok=True)
    first, last = (int(word) for word in (sys.argv[2:] + ["1", "999"][len(sys.argv[2:]) :]))

    def run(number: int, command: str, before: str) -> str:
        return printed(command, place) if first <= number <= last else before

    PAGE.write_text(with_outputs(PAGE.read_text(encoding="utf-8"), run), encoding="utf-8")
    take_pictures(PAGE.read_text(encoding="utf-8"), place)
