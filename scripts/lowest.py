"""Print a pip constraints file that pins what sweet runs on to the lowest versions that pyproject.toml allows.

Tools and oracles of the extras ``dev`` and ``docs`` stay free: users do not have them.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path


def lowest(requirements: list[str]) -> list[str]:
    """``torch>=2.11,<2.16`` -> ``torch==2.11``; what has no lower bound is left out, extras are dropped.

    A constraint of two numbers such as ``==2.11`` means the release 2.11.0.
    """
    found = (re.match(r"([\w.-]+)(?:\[[^\]]*\])?>=([\w.]+)", requirement) for requirement in requirements)
    return [f"{match[1]}=={match[2]}" for match in found if match]


def main() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    groups = [project["dependencies"], *(extras[name] for name in extras if name not in ("dev", "docs"))]
    print("\n".join(lowest([requirement for group in groups for requirement in group])))


if __name__ == "__main__":
    main()
