"""Stage fetch, run as a user runs it: in its own process, with a fake Hub on this machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from stages.common.core.errors import InputError
from stages.common.data.fetched import fetched_files
from stages.fetch.roles import matches
from tests.fake_hub import FakeHub
from tests.fetch.project import (
    BIG,
    CLIP,
    DATA,
    MINIMIND,
    PHOTOS,
    RUN,
    UNREACHABLE,
    Project,
    described,
    source,
)

# Manifests and the cache


def test_every_role_is_fetched_once_and_listed_in_the_manifests(
    project: Project, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.need_everything()
    out = project.run(HF_TOKEN="hf_secret")
    files = hub.files
    commit = {repo: hub.commit(repo) for repo in files}
    names = ["config.json", "preprocessor_config.json", "pytorch_model.bin"]
    assert project.manifest("vision") == {
        "vision": {
            "source": "hub",
            "repo": CLIP[1],
            "kind": "model",
            "commit": commit[CLIP],
            "files": [described(name, files[CLIP][name]) for name in names],
        }
    }
    prepare = project.manifest("prepare")
    assert list(prepare) == ["pretrain_data", "pretrain_images", "sft_data", "photographs"]
    assert prepare["photographs"]["files"] == [described(name, data) for name, data in sorted(PHOTOS.items())]
    assert prepare["pretrain_data"]["files"][0]["name"] == "pretrain_data.jsonl"
    assert project.manifest("models")["published"]["files"] == project.manifest("language")["language"]["files"]
    for name in PHOTOS:
        assert project.in_cache(DATA, name) == PHOTOS[name]
    assert project.in_cache(MINIMIND, "llm_512.pth") == BIG

    assert all(f"{repo[1]}@{commit[repo][:8]}" in out for repo in files)
    assert "fetch: 3.0 MB to download, " in out or "fetch: 3.1 MB to download, " in out
    assert "hf_secret" not in out
    assert len(hub.asked("/api/")) - len(hub.asked("/api/agent")) == 3  # one request for each repository
    assert len(hub.downloads) == 11  # llm_512.pth, which two roles use, once
    assert {request.token for request in hub.asked("/resolve/")} == {"hf_secret"}
    assert {request.token for request in hub.asked("/cdn/")} == {None}  # another host, which must not receive the token

    monkeypatch.chdir(project.folder)
    for path, stage in (("llm_512.pth", "language"), ("tokenizer.json", "tokenizer")):
        program = f"from stages.common.data.fetched import fetched_files; print(fetched_files('{stage}', '{stage}')[0])"
        found = Path(project.run(program, HF_ENDPOINT=UNREACHABLE).strip())
        assert found.read_bytes() == files[MINIMIND][path]
    assert fetched_files("prepare", "sft_images") == []


def test_a_second_run_downloads_nothing_and_writes_the_same(project: Project, hub: FakeHub) -> None:
    project.need_everything()
    project.run()
    first = project.manifests()
    hub.requests.clear()
    out = project.run()
    assert hub.downloads == []
    assert project.manifests() == first
    assert "fetch: 0 B to download" in out
    shutil.rmtree(project.folder / "data/fetched")  # as DVC does before it runs a stage
    hub.requests.clear()
    project.run(HF_HUB_OFFLINE="1")
    assert hub.requests == []
    assert project.manifests() == first
    out = project.run(HF_ENDPOINT=UNREACHABLE)
    assert f"no connection to {UNREACHABLE}" in out
    assert project.manifests() == first


def test_a_manifest_changes_when_the_repository_does(project: Project, hub: FakeHub) -> None:
    project.need(a=source(MINIMIND, "tokenizer.json"), b=source(CLIP, "config.json"))
    project.run()
    before = project.manifest("models")
    hub.files[MINIMIND]["tokenizer.json"] = b"[]" * 3000
    project.run()
    after = project.manifest("models")
    assert after["b"] == before["b"]
    assert after["a"]["files"] == [described("tokenizer.json", b"[]" * 3000)]
    project.need(a=source(MINIMIND, "tokenizer.json", revision=before["a"]["commit"]), b=source(CLIP, "config.json"))
    project.run()
    assert project.manifest("models") == before


def test_the_built_in_world_uses_neither_the_network_nor_huggingface_hub(project: Project) -> None:
    program = f"import sys; {RUN}; assert 'huggingface_hub' not in sys.modules"
    assert "nothing to fetch" in project.run(program, HF_ENDPOINT=UNREACHABLE)
    expected = {f"{stage}.json": b"{}\n" for stage in ("prepare", "tokenizer", "vision", "language", "models")}
    assert project.manifests() == expected


@pytest.mark.parametrize("local", [False, True])
def test_a_file_with_an_empty_alternative_may_be_missing(
    project: Project, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, local: bool
) -> None:
    folder = project.folder / "mine"
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes(b"{}")
    repo = "mine" if local else MINIMIND
    optional = "template.txt | chat_template.jinja |"
    project.need(some=source(repo, "tokenizer.json", optional), only=source(repo, optional))
    monkeypatch.chdir(project.folder)

    def found(role: str) -> list[str]:
        return [file["name"] for file in project.manifest("models")[role]["files"]]

    project.run()
    assert (found("some"), found("only")) == (["tokenizer.json"], [])
    assert fetched_files("models", "only") == []
    hub.files[MINIMIND]["chat_template.jinja"] = b"{{ messages }}"
    (folder / "chat_template.jinja").write_bytes(b"{{ messages }}")
    project.run()
    assert (found("some"), found("only")) == (["tokenizer.json", "chat_template.jinja"], ["chat_template.jinja"])


@pytest.mark.parametrize(
    ("name", "pattern", "expected"),
    [
        ("eval_images/熊猫.jpg", "eval_images/*.jpg", True),
        ("eval_images/熊猫.jpg", "eval_images/", True),
        ("eval_images/熊猫.jpg", "eval_images", True),
        ("eval_images/熊猫.jpg", "eval_image", False),
        ("eval_images/熊猫.jpg", "*.jpg", False),
        ("eval_images/熊猫.jpg", "**/*.jpg", True),
        ("熊猫.jpg", "**/*.jpg", True),
        ("eval_images/.DS_Store", "eval_images/*", False),
        ("a/b/c.jpg", "a/*/c.jpg", True),
        ("a/b/c.jpg", "a/*", False),
    ],
)
def test_patterns_match_as_in_a_shell(name: str, pattern: str, expected: bool) -> None:
    assert matches(name, pattern) is expected


# Local folders


def test_files_of_a_local_folder(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = project.folder / "我的 数据"
    (folder / "图片 大").mkdir(parents=True)
    (folder / "行.jsonl").write_bytes(b"{}\n")
    for number in range(3):
        (folder / f"图片 大/{number}.jpg").write_bytes(b"x" * number)
    (folder / "photo [1].jpg").write_bytes(b"one")
    project.need(mine=source("我的 数据", "missing.parquet|行.jsonl", "图片 大/", "photo [1].jpg", "图片 大/[12].jpg"))
    assert "mine" in project.run(HF_ENDPOINT=UNREACHABLE)
    mine = project.manifest("models")["mine"]
    pictures = mine["files"][1]
    assert (mine["source"], mine["repo"]) == ("local", "我的 数据")
    assert mine["files"][0] == described("行.jsonl", b"{}\n")
    assert {key: pictures[key] for key in ("name", "count", "size")} == {"name": "图片 大", "count": 3, "size": 3}
    assert [file["name"] for file in mine["files"][2:]] == ["photo [1].jpg", "图片 大/1.jpg", "图片 大/2.jpg"]
    assert str(project.folder) not in json.dumps(mine, ensure_ascii=False)

    monkeypatch.chdir(project.folder)
    found = fetched_files("models", "mine")
    assert found[:2] == [Path("我的 数据/行.jsonl"), Path("我的 数据/图片 大")]
    before = project.manifests()
    project.run()
    assert project.manifests() == before
    (folder / "图片 大/3.jpg").write_bytes(b"")
    project.run()
    assert project.manifest("models")["mine"]["files"][1]["digest"] != pictures["digest"]

    (folder / "行.jsonl").write_bytes(b"{}\n{}\n")
    with pytest.raises(InputError, match=r"行\.jsonl of 我的 数据 has another size"):
        fetched_files("models", "mine")
    (folder / "行.jsonl").unlink()
    with pytest.raises(InputError, match=r"行\.jsonl of 我的 数据 is no longer in .* run `dvc repro --force"):
        fetched_files("models", "mine")
    assert "fetch.models.mine.files: 我的 数据 has no 'missing.parquet|行.jsonl' (it has " in project.error()


def test_a_missing_manifest_is_a_one_line_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="run `dvc repro fetch` first"):
        fetched_files("vision", "vision")


def test_a_file_deleted_from_the_cache_is_a_one_line_error(project: Project) -> None:
    project.need(it=source(MINIMIND, "tokenizer.json"))
    project.run()
    shutil.rmtree(project.env["HF_HOME"])
    program = (
        "from stages.common.core.stage import run_stage; from stages.common.data.fetched import fetched_files; "
        "run_stage(lambda: fetched_files('models', 'it'))"
    )
    assert f"tokenizer.json of {MINIMIND[1]} is no longer in the Hub's cache" in project.error(program)
