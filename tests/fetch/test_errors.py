"""What stage fetch says of wrong parameters, and of a Hub that refuses or cannot be reached."""

from __future__ import annotations

import pytest

from tests.fake_hub import FakeHub
from tests.fetch.project import (
    BIG,
    DATA,
    MINIMIND,
    UNREACHABLE,
    Project,
    source,
)

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
