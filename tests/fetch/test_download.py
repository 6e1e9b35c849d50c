"""Downloads that break, are damaged, or do not fit on the disk."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.fake_hub import FakeHub
from tests.fetch.project import (
    BIG,
    MINIMIND,
    RUN,
    SHORT_PAUSES,
    Project,
    sha256,
    source,
)

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
