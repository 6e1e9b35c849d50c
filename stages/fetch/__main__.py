"""Stage fetch: download the files that other stages need from the Hugging Face Hub, or find them in local folders.

in: the Hub, local folders; params fetch, data.source, tokenizer.source, vision.source, language.source
out: data/fetched, one manifest for each stage that uses fetched files

No file is copied: files from the Hub stay in huggingface_hub's cache, pinned to a commit; local files stay in their
folder. A manifest lists files with their sizes and SHA-256 digests, so it changes if and only if their content does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stages.common.config.params import load_params
from stages.common.core.files import atomic_directory, write_json
from stages.common.core.paths import FETCHED
from stages.common.core.stage import run_stage
from stages.fetch.download import obtain, print_table, require_space
from stages.fetch.hub import hub_items, hub_listing
from stages.fetch.local import local_items
from stages.fetch.messages import hub_errors
from stages.fetch.roles import Listing, Role, needed_roles

STAGES = ("prepare", "tokenizer", "vision", "language", "models")


def find_items(roles: list[Role]) -> None:
    """Set the ``items`` and ``listing`` of each role; one request to the Hub for each repository."""
    listings: dict[tuple[str, str, str], Listing] = {}
    for role in roles:
        source = role.source
        if Path(source.repo).expanduser().is_dir():
            role.items = local_items(role)
            continue
        key = (source.kind, source.repo, source.revision)
        if key not in listings:
            listings[key] = hub_listing(role)
        role.listing = listings[key]
        role.items = hub_items(role)


def entry_of(role: Role) -> dict[str, Any]:
    """The manifest's entry for a role. It has no revision: a branch and its commit are the same content."""
    files = [
        {"name": item.name, "size": item.size, "sha256": item.sha256}
        if item.count is None
        else {"name": item.name, "count": item.count, "size": item.size, "digest": item.sha256}
        for item in role.items
    ]
    entry = {"source": "hub" if role.listing else "local", "repo": role.source.repo}
    if role.listing:
        entry |= {"kind": role.source.kind, "commit": role.listing.commit}
    return entry | {"files": files}


def verified_before() -> set[str]:
    """The SHA-256 digests in the manifests of the previous run, which has verified these files."""
    found: set[str] = set()
    for path in FETCHED.glob("*.json"):
        try:
            for entry in json.loads(path.read_text(encoding="utf-8")).values():
                found |= {file["sha256"] for file in entry["files"] if entry["source"] == "hub"}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # a damaged manifest: its files are verified again
    return found


def main() -> None:
    roles = needed_roles(load_params())
    if roles:
        find_items(roles)
        print_table(roles)
    else:
        print("fetch: nothing to fetch: no stage uses fetched files", flush=True)
    if from_hub := [role for role in roles if role.listing]:
        require_space(from_hub)
        verified = verified_before()
        for role in from_hub:
            with hub_errors(role):
                role.items = [obtain(role, item, verified) for item in role.items]
            verified |= {item.sha256 for item in role.items}
    with atomic_directory(FETCHED) as folder:
        for stage in STAGES:
            write_json(folder / f"{stage}.json", {role.name: entry_of(role) for role in roles if role.stage == stage})


if __name__ == "__main__":
    run_stage(main)
