"""Stop a run and resume it: the same weights, bit for bit.

A toy run of a few seconds. On the command line, after a crash, Ctrl-C or a power cut, with nothing but

    sweet pretrain --out runs/template --resume
"""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time

from toy import PRETRAIN, playground

from sweet.recipes.loader import load_recipe
from sweet.recipes.schema import PretrainRecipe
from sweet.training.pretrain import pretrain

recipe = load_recipe(PretrainRecipe, "quickstart", [*PRETRAIN, "checkpoint_every=5"])


def press_ctrl_c_after(folder) -> None:
    """What a person would do once the first checkpoint is there."""
    while not (folder / "checkpoints" / "step-5").exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)


with playground() as place:
    pretrain(recipe, place / "unbroken", quiet=True)

    threading.Thread(target=press_ctrl_c_after, args=(place / "broken",), daemon=True).start()
    try:
        pretrain(recipe, place / "broken", quiet=True)
    except KeyboardInterrupt:
        left = sorted(path.name for path in (place / "broken" / "checkpoints").iterdir())
        print("stopped; checkpoints:", *left)
    pretrain(recipe, place / "broken", resume=True, quiet=True)

    digests = [
        hashlib.sha256((place / run / "template.safetensors").read_bytes()).hexdigest()
        for run in ("unbroken", "broken")
    ]
    print("unbroken", digests[0][:16])
    print("resumed ", digests[1][:16])
    assert digests[0] == digests[1]
