"""What an installed sweet consists of."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path

import pytest

from sweet.version import VERSION

ROOT = Path(__file__).parents[1]


def test_the_wheel_holds_recipes_and_types() -> None:
    """All files under src/sweet that git does not ignore go into it; so these must be among them."""
    hatch = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]
    assert hatch["build"]["targets"]["wheel"] == {"packages": ["src/sweet"]}
    package = resources.files("sweet")
    assert (package / "py.typed").is_file()
    assert {file.name for file in (package / "recipes").iterdir()} >= {"quickstart.yaml", "micro.yaml", "small.yaml"}
    ignored = (ROOT / ".gitignore").read_text().split()
    assert not [line for line in ignored if line.endswith((".yaml", ".typed", "recipes/", "recipes"))]


def test_the_version_is_written_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    found: dict[str, str] = {}
    exec((ROOT / project["tool"]["hatch"]["version"]["path"]).read_text(), found)
    assert found["VERSION"] == VERSION


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript", "transformers", "peft"])
def test_what_is_optional_is_no_dependency(package: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert not [line for line in project["dependencies"] if line.startswith(package)]
