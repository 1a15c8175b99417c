"""The Hugging Face hub: a repository as a folder on this machine, and a folder as a repository.

Its settings are the library's own: HF_TOKEN, HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE. It is imported only where a name of
the hub is meant.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sweet.errors import UserError, reason

from .ownership import MARKER

NEEDED = ("config.json", "*.safetensors", "recipe.yaml", "README.md", "SHA256SUMS")
OTHERS = ("preprocessor_config.json", "*.safetensors.index.json")  # of transformers
PREFIX = "hub:"
WAIT = 3.0  # seconds for a connection
_NAME = re.compile(r"(hub:)?[\w.-]+/[\w.-]+(@[^@]+)?")


def is_hub_name(text: str) -> bool:
    """Whether ``user/name``, ``hub:user/name`` or ``user/name@revision`` is meant, and no path.

    What exists wins, and where the first word is a folder, the second one is a mistyped path, not a repository.
    """
    if not _NAME.fullmatch(text):
        return False
    return text.startswith(PREFIX) or not (Path(text).exists() or Path(text.split("/")[0]).exists())


def local_folder(
    name: str | Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    only: Sequence[str] | None = None,
) -> Path:
    """The folder that ``name`` is, or the cached snapshot of the hub's repository of that name.

    ``revision`` is a branch, tag or commit; ``only`` are the files to get, by default all that are needed. Without a
    network the snapshot has to be in the cache. Raises UserError for what is neither, naming it and the hub's reason.
    """
    text = str(name)
    if not is_hub_name(text):
        return Path(name).expanduser()
    repo, _, tagged = text.removeprefix(PREFIX).partition("@")
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.errors import LocalEntryNotFoundError

    with _hub_errors(f"{text}: no such folder, and the hub does not give it"):
        why = offline()
        cached: Any = {} if why is None or HF_HUB_OFFLINE else {"local_files_only": True}
        try:
            found = snapshot_download(
                repo,
                revision=revision or tagged or None,
                token=token,
                cache_dir=cache_dir,
                allow_patterns=list(only or (*NEEDED, *OTHERS)),
                **cached,
            )
        except LocalEntryNotFoundError as problem:
            raise problem if why is None else ConnectionError(f"offline: {why}; not in its cache") from None
    return Path(found)


def offline() -> str | None:
    """Why the hub cannot be reached, known within seconds; None where it can, as far as that shows."""
    from urllib.request import getproxies  # here: it takes a tenth of a short command's time

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    address = urlsplit(constants.ENDPOINT)
    if getproxies() or address.hostname is None:
        return None
    try:
        socket.create_connection((address.hostname, address.port or 443), timeout=WAIT).close()
    except OSError as problem:
        return f"no connection to {address.hostname}: {reason(problem)}"
    return None


def out_of_reach(repo: str, files: Sequence[str]) -> str | None:
    """Why none of ``files`` of a repository can be had; None where one is in the cache or the hub can be reached."""
    from huggingface_hub import try_to_load_from_cache

    if any(isinstance(try_to_load_from_cache(repo, name), str) for name in files):
        return None
    why = offline()
    return None if why is None else f"offline ({why}), and {repo} is not in the cache of the hub"


def check_repo(repo: str) -> None:
    """Raises UserError unless ``repo`` can be the name of a repository."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as problem:
        raise UserError(f"--repo {repo}: {reason(problem)}") from None


def upload(folder: Path, repo: str, *, private: bool | None = None, token: str | None = None, message: str) -> str:
    """Put the files of ``folder`` into the repository, made if it is not there; returns its address.

    ``private`` None is the account's own default. Raises UserError naming the repository and the hub's reason.
    """
    from huggingface_hub import HfApi

    check_repo(repo)
    api = HfApi(token=token, library_name="sweet")
    with _hub_errors(f"--repo {repo}: the hub does not take it"):
        made = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=made.repo_id, folder_path=folder, commit_message=message, ignore_patterns=[f"{MARKER}*"]
        )
    return str(made)


@contextmanager
def _hub_errors(trouble: str) -> Iterator[None]:
    """The hub's library has a dozen classes of errors, all of them the caller's or the network's: UserError."""
    try:
        yield
    except Exception as problem:
        raise UserError(f"{trouble} ({reason(problem)})") from None
