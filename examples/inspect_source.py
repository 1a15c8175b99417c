"""Inspect a folder: size, ranks, how much of the signal each width keeps, checksums.

The template is a toy that was trained for a moment. On the command line:

    sweet inspect runs/template
"""

from __future__ import annotations

from toy import make_source, playground

from sweet.describe import inspect

with playground() as place:
    template = make_source(place / "template")
    found = inspect(template)
    print(f"{found['kind']} {found['size']}, width {found['width']}, checksums {found['checksums']}")
    print(f"ranks {found['ranks']}, {found['share_of_slices']:.0%} of the parameters that its slices have")
    for row in found["kept_energy"]:
        print(f"    the first {row['channels']:2} channels keep {row['share']:6.1%} of the energy")

    with (template / "recipe.yaml").open("a") as file:
        file.write("# somebody was here\n")
    print("after a change: checksums", inspect(template)["checksums"])
