"""The hub, offline: its library's own cache on one side, a stand-in that files uploads into it on the other."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import yaml
from huggingface_hub import constants
from timm.models.eva import Eva
from typer.testing import CliRunner

import sweet
from sweet.cli import app
from sweet.convert.read import repository
from sweet.export import export, verify
from sweet.files import read_json
from sweet.storage import hub
from sweet.storage.records import ConvertedRecord, OriginRecord, WeightError

IMAGES = torch.linspace(-1, 1, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16)


class FakeHub:
    """Repositories in the layout of the library's cache, where its real ``snapshot_download`` finds them offline."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.calls: list[tuple[Any, ...]] = []

    def file(self, folder: Path, repo: str, revision: str = "main") -> None:
        place = self.cache / f"models--{repo.replace('/', '--')}"
        commit = hashlib.sha1(f"{repo} {revision}".encode()).hexdigest()
        shutil.copytree(folder, place / "snapshots" / commit, dirs_exist_ok=True)
        (place / "refs").mkdir(parents=True, exist_ok=True)
        (place / "refs" / revision).write_text(commit)

    def api(self, token: str | None = None, **about: Any) -> Any:
        fake = self

        class Api:
            def create_repo(self, repo: str, **options: Any) -> Any:
                fake.calls.append(("create", repo, token, options))
                return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo}")

            def upload_folder(
                self, *, repo_id: str, folder_path: Path, commit_message: str, ignore_patterns: list[str]
            ) -> None:
                names = sorted(path.name for path in Path(folder_path).iterdir())
                names = list(huggingface_hub.utils.filter_repo_objects(names, ignore_patterns=ignore_patterns))
                fake.calls.append(("upload", repo_id, names))
                fake.file(Path(folder_path), repo_id)

        return Api()


@pytest.fixture
def fake_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub(tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub, "HfApi", fake.api)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(fake.cache))
    monkeypatch.chdir(tmp_path)
    return fake


@torch.no_grad()
def test_a_template_goes_up_and_comes_back(template: Path, fake_hub: FakeHub, tmp_path: Path) -> None:
    source = sweet.Template.from_pretrained(template)
    assert source.push_to_hub("anna/template", private=True, token="hf_x", licence="mit") == (
        "https://huggingface.co/anna/template"
    )
    files = ["README.md", "SHA256SUMS", "config.json", "recipe.yaml", "template.safetensors"]
    assert fake_hub.calls == [
        ("create", "anna/template", "hf_x", {"private": True, "exist_ok": True}),
        ("upload", "anna/template", files),
    ]
    for name in ("anna/template", "hub:anna/template", "anna/template@main"):
        again = sweet.load(name, cache_dir=fake_hub.cache)
        assert isinstance(again, sweet.Template) and again.info == source.info
    assert torch.equal(again.build(3, 1)(IMAGES), source.build(3, 1)(IMAGES))
    card = again.texts["README.md"]
    front = yaml.safe_load(card.split("---")[1])
    assert (front["license"], front["library_name"]) == ("mit", "sweet") and "template" in front["tags"]
    again.save_pretrained(tmp_path / "saved")
    assert verify(tmp_path / "saved")["loads"]
    assert (tmp_path / "saved" / "README.md").read_text() == card


@torch.no_grad()
def test_revision_and_the_folder_that_wins(template: Path, model: Path, fake_hub: FakeHub, tmp_path: Path) -> None:
    fake_hub.file(template, "anna/vit")
    fake_hub.file(model, "anna/vit", "v2")
    assert isinstance(sweet.load("anna/vit"), sweet.Template)
    assert isinstance(sweet.load("anna/vit", revision="v2"), Eva)
    assert isinstance(sweet.load("anna/vit@v2", num_classes=3), Eva)
    with pytest.raises(sweet.UserError, match="anna/vit: no such folder, and the hub does not give it"):
        sweet.load("anna/vit", revision="v3")
    shutil.copytree(model, tmp_path / "anna" / "vit")
    assert isinstance(sweet.load("anna/vit"), Eva)
    assert isinstance(sweet.load("hub:anna/vit"), sweet.Template)


def test_only_what_is_needed_is_asked_for(template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def snapshot(repo: str, **options: Any) -> str:
        calls.append((repo, options))
        return str(template)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    sweet.Template.from_pretrained("anna/template", revision="v1", token="hf_x", cache_dir="there")
    ((repo, options),) = calls
    assert repo == "anna/template"
    patterns = options.pop("allow_patterns")
    assert options == {"revision": "v1", "token": "hf_x", "cache_dir": "there"}
    assert {path.name for path in template.iterdir() if any(path.match(pattern) for pattern in patterns)} == {
        "template.safetensors", "config.json", "recipe.yaml", "README.md", "SHA256SUMS"
    }  # fmt: skip


def test_weights_that_are_there_as_a_pickle_only_are_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text('{"kind": "model"}')
    wanted: list[list[str]] = []

    def snapshot(repo: str, *, allow_patterns: list[str], **_: Any) -> str:
        wanted.append(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    repository("anna/old")
    assert "pytorch_model.bin" in wanted[-1] and "pytorch_model.bin" not in wanted[-2]
    (tmp_path / "model.safetensors").write_bytes(b"")
    repository("anna/old")
    assert "pytorch_model.bin" not in wanted[-1]


def test_what_is_neither(fake_hub: FakeHub, model: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    for name, message in {
        "nowhere": "nowhere: no such folder",
        "runs/tempalte": "runs/tempalte: no such folder$",
        "anna/nothing": r"anna/nothing: no such folder, and the hub does not give it \(.*\)",
        "a/b/c": "a/b/c: no such folder$",
    }.items():
        with pytest.raises(sweet.UserError, match=message):
            sweet.load(name)
    with pytest.raises(sweet.UserError, match="is a model, expected a template or a dense"):
        sweet.Template.from_pretrained(model)
    for repo in ("a/b/c", "what is this", "-x"):
        with pytest.raises(sweet.UserError, match=f"--repo {repo}: "):
            hub.upload(model, repo, message="")
    assert fake_hub.calls == []


@torch.no_grad()
def test_export_to_hub(classifier: Path, fake_hub: FakeHub, tmp_path: Path) -> None:
    words = ["export", classifier, "--to", "hub", "--out", "out", "--repo", "anna/vit", "--private", "--license", "mit"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    assert "https://huggingface.co/anna/vit" in result.stdout
    assert fake_hub.calls[0] == ("create", "anna/vit", None, {"private": True, "exist_ok": True})
    front = yaml.safe_load((tmp_path / "out" / "README.md").read_text().split("---")[1])
    assert front["library_name"] == "timm" and front["pipeline_tag"] == "image-classification"
    assert front["license"] == "mit" and "timm" in front["tags"]
    again, first = sweet.load("anna/vit"), sweet.load(classifier)
    assert torch.equal(again(IMAGES), first(IMAGES))  # type: ignore[operator]
    assert read_json(tmp_path / "out" / "config.json")["pretrained_cfg"]["license"] == "mit"


def test_the_licence_of_a_source_is_the_one_that_was_named_last(
    template: Path, fake_hub: FakeHub, tmp_path: Path
) -> None:
    def stated(folder: Path) -> str:
        blocks = (folder / "README.md").read_text().split("---\n")
        assert len(blocks) == 3 and blocks[0] == ""
        return str(yaml.safe_load(blocks[1])["license"])

    export(template, "hub", tmp_path / "one", licence="apache-2.0")
    export(tmp_path / "one", "hub", tmp_path / "same")
    export(tmp_path / "one", "hub", tmp_path / "other", licence="mit")
    assert [stated(tmp_path / name) for name in ("one", "same", "other")] == ["apache-2.0", "apache-2.0", "mit"]

    source = sweet.Template.from_pretrained(template)
    assert source.hub_licence() == "other" and sweet.Template.from_pretrained(tmp_path / "one").hub_licence() is None
    none, origin = WeightError(overall=0, components={}, layers=[]), OriginRecord(name="x", licence="cc-by-nc-4.0")
    made = ConvertedRecord(source="x", source_sha256="", metric="weights", seconds=0, error=none, origin=origin)
    source.record = source.record.model_copy(update={"converted": made})
    source.push_to_hub("anna/converted")  # as `sweet export --to hub` does
    assert stated(hub.local_folder("anna/converted")) == "cc-by-nc-4.0"


def test_a_source_is_exported_too(dense: Path, fake_hub: FakeHub, tmp_path: Path) -> None:
    export(dense, "hub", tmp_path / "out", repo="anna/dense")
    assert isinstance(sweet.load("anna/dense"), sweet.Template)
    words = ["init", "anna/dense", "--depth", "1", "--heads", "2", "--out", "vit"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert verify(tmp_path / "vit")["loads"]


def test_what_the_hub_refuses(model: Path, fake_hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError("403 Forbidden: no right\nmore")

    monkeypatch.setattr(huggingface_hub, "HfApi", refuse_api(refuse))
    for words, message in {
        "--to hub --repo anna/vit": "error: --repo anna/vit: the hub does not take it (403 Forbidden: no right)\n",
        "--to hub --repo a/b/c": "error: --repo a/b/c: ",
        "--to timm --repo anna/vit": "error: --repo anna/vit: goes with --to hub\n",
        "--to hub --private": "error: --private and --token: go with --repo\n",
    }.items():
        result = CliRunner().invoke(app, ["export", str(model), "--out", "out", "--overwrite", *words.split()])
        assert result.exit_code == 2 and result.stderr.startswith(message) and result.stderr.count("\n") == 1
    assert (tmp_path / "out" / "config.json").is_file()  # of the first: whole, and ready for another try


def refuse_api(refuse: Callable[..., Any]) -> Any:
    class Api:
        def __init__(self, **_: Any) -> None: ...

        create_repo = refuse

    return Api


def test_no_path_of_this_machine_leaves(template: Path, classifier: Path, tmp_path: Path) -> None:
    """Recipes name folders with pictures; what is handed on does not tell where they lie."""
    source = sweet.Template.from_pretrained(template)
    source.texts["recipe.yaml"] = (
        "data:\n  source: folder:/home/anna/secret/flowers\ninit_from: /home/anna/secret/old\n"
        "teacher: /home/anna/secret/wise\n"
    )
    source.save_pretrained(tmp_path / "source")
    assert "secret" not in (tmp_path / "source" / "recipe.yaml").read_text()
    assert "folder:flowers" in (tmp_path / "source" / "recipe.yaml").read_text()
    assert "teacher: wise" in (tmp_path / "source" / "recipe.yaml").read_text()
    copy = tmp_path / "copy"
    shutil.copytree(classifier, copy)
    recipe = yaml.safe_load((copy / "recipe.yaml").read_text())
    recipe["data"]["source"] = "folder:/home/anna/secret/flowers"
    (copy / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    export(copy, "timm", tmp_path / "out")
    texts = "".join(path.read_text() for path in (tmp_path / "out").iterdir() if path.suffix != ".safetensors")
    assert "secret" not in texts and "folder:flowers" in texts


def test_a_tilde_is_the_home(template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(template.parent))
    assert hub.local_folder(f"~/{template.name}") == template
