"""What an installed sweet consists of."""

from __future__ import annotations

import re
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


def test_the_quickstart_goes_on_where_it_was_stopped() -> None:
    """And installs what README's other way to install does, so that its examples work after either."""
    script, readme = ((ROOT / name).read_text(encoding="utf-8") for name in ("scripts/quickstart", "README.md"))
    assert "--resume" in script and "--overwrite" not in script
    assert "scripts/setup onnx\n" in script and 'pip install ".[onnx]"' in readme


def test_every_place_names_the_same_versions_of_python() -> None:
    """And what Python 3.13 has dropped is not imported."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11,<3.14"
    setup = (ROOT / "scripts" / "setup").read_text()
    assert "(3, 11) <= sys.version_info[:2] < (3, 14)" in setup and "3.11, 3.12 or 3.13" in setup
    gone = {
        "aifc",
        "audioop",
        "cgi",
        "chunk",
        "crypt",
        "imghdr",
        "imp",
        "distutils",
        "pipes",
        "sndhdr",
        "telnetlib",
        "uu",
    }
    for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]:
        imported = re.findall(r"^\s*(?:from|import) (\w+)", path.read_text(encoding="utf-8"), re.M)
        assert not gone & set(imported), path
