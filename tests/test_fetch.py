"""Stage fetch, run as a user runs it: in its own process, with a fake Hub on this machine."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.common.core.errors import InputError
from stages.common.data.fetched import fetched_files
from stages.fetch.roles import matches
from tests.fake_hub import FakeHub, Repo

ROOT = Path(__file__).resolve().parents[1]
DATA: Repo = ("dataset", "someone/minimind-v_dataset")
CLIP: Repo = ("model", "someone/clip")
MINIMIND: Repo = ("model", "someone/mind")
BIG = bytes(range(256)) * 12_000  # 3 MB
PHOTOS = {f"eval_images/{name}": name.encode() for name in ("太空 宇航员-Astronaut.jpg", "熊猫-Panda.jpg")}
UNREACHABLE = "http://127.0.0.1:9"  # no server listens on this port
SHORT_PAUSES = "import stages.fetch.download as d; d.PAUSES = (0.01, 0.01); "
RUN = "from stages.common.core.stage import run_stage; from stages.fetch.__main__ import main; run_stage(main)"


def files() -> dict[Repo, dict[str, bytes]]:
    return {
        DATA: {
            "pretrain_data.jsonl": b'{"image": "1.jpg"}\n' * 100,
            "pretrain_images.zip": b"PK" + BIG[:5000],
            "sft_data.jsonl": b"{}\n",
            "sft_images.zip": b"PK" + BIG[:6000],
            "README.md": b"# data\n",
            ".gitattributes": b"*.zip filter=lfs\n",
            **PHOTOS,
            "eval_images/.DS_Store": b"",
            "eval_images/small/熊猫.jpg": b"one folder further down",
        },
        CLIP: {"config.json": b"{}", "preprocessor_config.json": b"{ }", "pytorch_model.bin": BIG[:9000]},
        MINIMIND: {"llm_512.pth": BIG, "tokenizer.json": b"{}" * 2000, "tokenizer_config.json": b"{}"},
    }


def source(repo: Repo | str, *names: str, revision: str = "main") -> dict[str, Any]:
    kind, repo = repo if isinstance(repo, tuple) else ("dataset", repo)
    return {"repo": repo, "kind": kind, "revision": revision, "files": list(names)}


EVERYTHING = {
    "vision": source(CLIP, "config.json", "preprocessor_config.json", "model.safetensors|pytorch_model.bin"),
    "tokenizer": source(MINIMIND, "tokenizer.json", "tokenizer_config.json"),
    "language": source(MINIMIND, "llm_512.pth|lm_512.pth"),
    "pretrain_data": source(DATA, "pretrain_data.parquet|pretrain_data.jsonl"),
    "pretrain_images": source(DATA, "pretrain_images.zip"),
    "sft_data": source(DATA, "sft_data.jsonl"),
    "sft_images": source(DATA),
    "photographs": source(DATA, "eval_images/*.jpg"),
    "models": {"published": source(MINIMIND, "llm_512.pth")},
}


class Project:
    """A folder in which the stage runs. Its parameters require no fetched files until a ``need`` method is called."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder, self.env = folder, env
        self.params = yaml.safe_load((ROOT / "tests/params.yaml").read_text(encoding="utf-8"))
        self.params["fetch"] = copy.deepcopy(EVERYTHING) | {"models": {}}

    def need_everything(self) -> None:
        self.params["data"]["source"] = "minimind"
        for stage in ("vision", "tokenizer", "language"):
            self.params[stage]["source"] = "fetch"
        self.params["fetch"] = copy.deepcopy(EVERYTHING)

    def need(self, **sources: dict[str, Any]) -> None:
        """Require ``sources`` only, as external checkpoints."""
        self.params["fetch"]["models"] = sources

    def start(self, program: str | None = None, **env: str) -> subprocess.Popen[str]:
        (self.folder / "params.yaml").write_text(yaml.safe_dump(self.params, allow_unicode=True), encoding="utf-8")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGINGFACE_"))}
        command = [sys.executable, *(["-m", "stages.fetch"] if program is None else ["-c", program])]
        environment = kept | {"PYTHONPATH": str(ROOT)} | self.env | env
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, cwd=self.folder, env=environment, text=True, **pipes)

    def run(self, program: str | None = None, **env: str) -> str:
        """Run the stage, which must succeed; returns its output."""
        process = self.start(program, **env)
        out, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        return out

    def error(self, program: str | None = None, **env: str) -> str:
        """Run the stage, which must exit with code 2; returns its one-line error."""
        process = self.start(program, **env)
        errors = process.communicate(timeout=60)[1]
        assert process.returncode == 2, errors
        assert "Traceback" not in errors
        return next(line for line in errors.splitlines() if line.startswith("error: "))

    def manifest(self, stage: str) -> dict[str, Any]:
        return json.loads((self.folder / f"data/fetched/{stage}.json").read_text(encoding="utf-8"))

    def manifests(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.folder / "data/fetched").iterdir()}

    def in_cache(self, repo: Repo, name: str) -> bytes:
        cache = Path(self.env["HF_HOME"]) / "hub" / f"{repo[0]}s--{repo[1].replace('/', '--')}"
        (found,) = cache.glob(f"snapshots/*/{name}")
        return found.read_bytes()

    def partial(self) -> Path | None:
        return next(Path(self.env["HF_HOME"]).glob("hub/*/blobs/*.fetch.incomplete"), None)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub(files()) as hub:
        yield hub


@pytest.fixture
def project(tmp_path: Path, hub: FakeHub) -> Project:
    folder = tmp_path / "a project"
    folder.mkdir()
    return Project(folder, hub.env(tmp_path / "hf"))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def described(name: str, data: bytes) -> dict[str, Any]:
    return {"name": name, "size": len(data), "sha256": sha256(data)}


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


# Broken connections and damaged files


def test_a_broken_download_is_resumed(project: Project, hub: FakeHub) -> None:
    hub.break_after, hub.breaks = 1_000_000, 2
    project.need(it=source(MINIMIND, "llm_512.pth"))
    out = project.run(SHORT_PAUSES + RUN)
    assert out.count("fetch: llm_512.pth: the connection broke at") == 2
    assert project.in_cache(MINIMIND, "llm_512.pth") == BIG
    first, second, third = (request.range for request in hub.asked("/cdn/"))
    assert first is None and second.startswith("bytes=") and third.startswith("bytes=")
    assert 0 < int(second[6:-1]) <= 1_000_000 < int(third[6:-1]) <= 2_000_000
    assert project.partial() is None


def test_a_download_that_keeps_failing_is_an_error_and_the_next_run_resumes_it(project: Project, hub: FakeHub) -> None:
    project.need(it=source(MINIMIND, "llm_512.pth"))
    hub.break_after, hub.breaks = 1_000_000, 1
    hub.hold_after = 0
    impatient = "from huggingface_hub import constants; constants.HF_HUB_DOWNLOAD_TIMEOUT = 0.2; "
    message = project.error(SHORT_PAUSES + impatient + RUN)
    assert "no answer 3 times, 1.0 MB of 3.1 MB downloaded; run the same command again" in message
    hub.break_after, hub.breaks, hub.hold_after = 700_000, None, None
    hub.requests.clear()
    project.run(SHORT_PAUSES + RUN)
    assert [int(request.range[6:-1]) // 100_000 for request in hub.asked("/cdn/")] == [10, 17, 24]
    assert project.in_cache(MINIMIND, "llm_512.pth") == BIG


def test_a_killed_download_is_resumed_in_the_next_run(project: Project, hub: FakeHub) -> None:
    project.need(it=source(MINIMIND, "llm_512.pth"))
    hub.hold_after = 2_000_000
    process = project.start()
    end = time.monotonic() + 30
    while (partial := project.partial()) is None or partial.stat().st_size < 1_500_000:
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (project.folder / "data/fetched").exists()
    hub.hold_after = None
    hub.requests.clear()
    out = project.run()
    (request,) = hub.asked("/cdn/")
    assert int(request.range.removeprefix("bytes=").removesuffix("-")) >= 1_500_000
    assert "3.1 MB" in out and "3.1 MB to download" not in out  # only the rest
    assert project.in_cache(MINIMIND, "llm_512.pth") == BIG
    assert project.partial() is None


@pytest.mark.parametrize("name", ["llm_512.pth", "tokenizer_config.json"])
def test_damaged_downloads_are_not_used(project: Project, hub: FakeHub, name: str) -> None:
    project.need(it=source(MINIMIND, name))
    hub.wrong = {name}
    message = project.error()
    right = hub.files[MINIMIND][name]
    assert f"fetch.models.it: {name} of {MINIMIND[1]}@" in message and "run the same command again" in message
    if len(right) >= hub.lfs_from:
        assert f"the Hub's is {sha256(right)}" in message
        assert f"its digest is {sha256(right[:-1] + bytes([right[-1] ^ 1]))}" in message
    assert not list(Path(project.env["HF_HOME"]).glob("hub/*/blobs/*"))
    hub.wrong = set()
    project.run()
    assert project.in_cache(MINIMIND, name) == right


def test_a_damaged_file_in_the_cache_is_found(project: Project, hub: FakeHub) -> None:
    project.need(it=source(MINIMIND, "llm_512.pth"))
    project.run()
    (blob,) = Path(project.env["HF_HOME"]).glob(f"hub/*/blobs/{sha256(BIG)}")
    blob.write_bytes(BIG[:-1])  # a file of another size is downloaded again
    project.run()
    assert project.in_cache(MINIMIND, "llm_512.pth") == BIG
    blob.write_bytes(BIG[:-1] + b"?")
    shutil.rmtree(project.folder / "data/fetched")  # whose digests would not be verified again
    assert "llm_512.pth of someone/mind" in project.error()
    assert not blob.exists()
    project.run()
    assert project.in_cache(MINIMIND, "llm_512.pth") == BIG


def test_a_server_error_is_retried(project: Project, hub: FakeHub) -> None:
    project.need(it=source(MINIMIND, "llm_512.pth"))
    hub.answers[MINIMIND] = (503, "")
    assert "the server answered 503 3 times, 0 B of 3.1 MB downloaded" in project.error(SHORT_PAUSES + RUN)


# Errors that a user can cause


def test_too_little_disk_space_is_an_error_before_any_download(project: Project, hub: FakeHub) -> None:
    project.need_everything()
    message = project.error(f"import stages.fetch.download as d; d.free_bytes = lambda path: 2_000_000; {RUN}")
    assert "3.1 MB are to be downloaded, but the disk of " in message and " has 2.0 MB free: " in message
    assert hub.downloads == []
    assert not (project.folder / "data/fetched").exists()


MISTAKES = {
    "file": (source(MINIMIND, "llm_521.pth"), "mind@", "has no 'llm_521.pth' (it has llm_512.pth, "),
    "glob": (source(DATA, "eval_images/*.gif"), "has no 'eval_images/*.gif' (it has "),
    "repo": (source(("model", "someone/nobody")), "has no model 'someone/nobody' that you can access; check repo"),
    "kind": (source(("model", DATA[1])), f"has no model '{DATA[1]}' that you can access; check repo and kind"),
    "revision": (source(MINIMIND, revision="v9"), "someone/mind has no revision 'v9'"),
    "path": (source("/no/such/folder"), "'/no/such/folder' is neither a local folder nor an id on the Hub"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_a_one_line_error_with_the_parameter(project: Project, hub: FakeHub, mistake: str) -> None:
    wrong, *parts = MISTAKES[mistake]
    project.need(it=wrong | {"files": wrong["files"] or ["config.json"]})
    message = project.error(HF_TOKEN="hf_secret")
    assert message.startswith("error: fetch.models.it")
    assert all(part in message for part in parts), message
    assert "hf_secret" not in message
    assert hub.downloads == []


def test_the_error_for_a_gated_repository_links_its_terms(project: Project, hub: FakeHub) -> None:
    project.need(it=source(MINIMIND, "llm_512.pth"))
    hub.answers[MINIMIND] = (403, "GatedRepo")
    assert f"accept its terms at {hub.url}/{MINIMIND[1]}" in project.error()
    hub.answers[MINIMIND] = (401, "")
    assert "HF_TOKEN" in project.error()


def test_a_server_that_is_not_a_hub(project: Project, hub: FakeHub) -> None:
    project.need(it=source(MINIMIND, "llm_512.pth"))
    assert "answered 404 when asked for someone/mind; check repo and HF_E" in project.error(HF_ENDPOINT=hub.url + "/x")
    hub.page = b"<html>Welcome to the hotel</html>"
    assert f"{hub.url} does not answer like a Hub; check HF_ENDPOINT" in project.error()


def test_a_private_repository_requires_a_token(project: Project, hub: FakeHub) -> None:
    project.need(it=source(MINIMIND, "llm_512.pth"))
    hub.token = "hf_right"
    assert "for a private one, log in with `hf auth login` or set HF_TOKEN" in project.error(HF_TOKEN="hf_wrong")
    project.run(HF_TOKEN="hf_right")
    assert project.in_cache(MINIMIND, "llm_512.pth") == BIG


def test_errors_without_a_connection_and_in_offline_mode(project: Project) -> None:
    project.need(it=source(MINIMIND, "llm_512.pth"))
    address = UNREACHABLE.replace("//", "//user:password@")
    message = project.error(HF_ENDPOINT=address)
    assert f"fetch.models.it: no connection to {UNREACHABLE} for {MINIMIND[1]}" in message
    assert "HF_HUB_OFFLINE is set" in project.error(HF_HUB_OFFLINE="1")
    project.run()
    project.need(it=source(MINIMIND, "llm_512.pth", "tokenizer.json"))
    assert f"tokenizer.json of {MINIMIND[1]}@" in project.error(HF_HUB_OFFLINE="1")
