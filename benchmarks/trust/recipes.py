"""Damaged recipes through ``sweet plan``: each is right, or one line and exit code 2.

python benchmarks/trust/recipes.py [--count 500] [--out results/trust/recipes.json]
"""

from __future__ import annotations

import random
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from common import TINY, Tally, options, verdict

VALUES = (
    "null", "-1", "0", "1e400", ".nan", ".inf", "-.inf", "9" * 26, "1000000000", '"3"', "true", "[]", "{}",
    "[1, [2, [3]]]", "2024-01-01", "!!python/object/apply:os.system [id]", "!!binary aGVsbG8=", "0x10", "0o17",
    "1_000", "12:30:45", "~",
    "''", "'${HOME}'", "!!set {a, b}", "../../../etc/passwd", "'folder:/proc'", "|\n  a\n  b", "1" * 5000,
    "1" + "0" * 30,
)  # fmt: skip
BYTES = [
    b"\t", b":", b"- ", b"&a ", b"*a ", b"!!", b"{", b"}", b"[", b"\n", b"'", b'"', b"|", b">", b"%", b"@", b"\x85",
    b"\xff",
]  # fmt: skip


def whole_texts(text: str) -> list[bytes]:
    """Recipes that are wrong as a whole: bombs, depth, encodings, keys."""
    letters = "abcdefghij"
    lists = "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in pairwise(letters))
    groups = "".join(f"{b}: &{b} {{{','.join(f'k{j}: *{a}' for j in range(9))}}}\n" for a, b in pairwise(letters))
    merges = "".join(f"{b}: &{b} {{<<: [{','.join([f'*{a}'] * 9)}]}}\n" for a, b in pairwise(letters))
    texts = [
        "a: &a [x,x,x,x,x,x,x,x,x]\n" + lists, "a: &a {x: 1, y: 2}\n" + groups, "a: &a {x: 1}\n" + merges, "a: &a [*a]",
        "a: &a {b: *a}", "a: " + "[" * 5000 + "]" * 5000, "".join(" " * i + "a:\n" for i in range(2000)),
        "a: " + "x" * 10**7, "".join(f"k{i}: {i}\n" for i in range(20000)), "", "# x", "- a\n- b", "hello",
        text + "\n---\n" + text, text.replace("  ", "\t"), "a: \0", text + "\nlr: 1\n", text + "\n~: 1\n",
        text + "\n? [a, b]\n: 1\n", text + "\n? {a: b}\n: 1\n", text + "\n.nan: 1\n", text + "\nx: [1, 2",
        "%YAML 9.9\n---\na: 1", 'name: "\\ud800"\n' + text, text.replace("name: tiny", 'name: "\\e[31m\\u202e"'),
    ]  # fmt: skip
    return [text.encode() for text in texts] + [bytes(range(256)), text.encode("utf-16"), b"name: caf\xe9"]


def one_value(base: dict[str, Any], draw: random.Random) -> tuple[str, bytes]:
    """Another value for one key, at any depth."""
    recipe: dict[str, Any] = yaml.safe_load(yaml.safe_dump(base))
    group, path = recipe, []
    while True:
        key = draw.choice(sorted(group))
        path.append(key)
        if not isinstance(group[key], dict) or draw.random() < 0.1:
            break
        group = group[key]
    value = draw.choice(VALUES)
    group[key] = "@@@"
    return f"{'.'.join(path)}={value[:40]}", yaml.safe_dump(recipe, sort_keys=False).replace("'@@@'", value).encode()


def bytes_changed(text: str, draw: random.Random) -> tuple[str, bytes]:
    data = bytearray(text.encode())
    for _ in range(draw.randint(1, 6)):
        kind, at = draw.randrange(3), draw.randrange(len(data))
        if kind == 0:
            data[at] = draw.randrange(256)
        elif kind == 1:
            del data[at : at + draw.randint(1, 20)]
        else:
            data[at:at] = draw.choice(BYTES)
    return "bytes", bytes(data)


def main() -> None:
    given = options("recipes", count=500, seed=0)
    text, tally = TINY.read_text(), Tally()
    base = yaml.safe_load(text)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "recipe.yaml"
        wholes = whole_texts(text)
        for number in range(given.count):
            draw = random.Random(f"{given.seed} {number}")
            if number < len(wholes):
                label, content = f"whole {number}", wholes[number]
            elif draw.random() < 0.75:
                label, content = one_value(base, draw)
            else:
                label, content = bytes_changed(text, draw)
            path.write_bytes(content)
            tally.add(f"{number} {label}", "plan", verdict(["plan", str(path)]))
    tally.write(given.out, recipes=given.count, seed=given.seed)


if __name__ == "__main__":
    main()
