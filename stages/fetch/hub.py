"""The Hub: the files of a repository, and their paths in huggingface_hub's cache."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from stages.common.config.fetch import FetchSource
from stages.common.core.files import write_json, write_text
from stages.fetch.messages import endpoint, hub_errors
from stages.fetch.roles import Item, Listing, Role, choose, matches

LISTING_TIMEOUT = 30  # seconds
GIT_OR_SHA256 = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def hub_items(role: Role) -> list[Item]:
    """The files of a repository that the role's `files` match. Raises InputError."""
    items = role.listing.items

    def find(pattern: str) -> list[str]:
        return [pattern] if pattern in items else sorted(name for name in items if matches(name, pattern))

    return [items[name] for name in choose(role, find, lambda: items)]


def hub_listing(role: Role) -> Listing:
    """The files of the repository; without a connection, those that the cache has of it. Raises InputError."""
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    source = role.source
    with hub_errors(role):
        try:
            which = {"repo_type": source.kind, "revision": source.revision}
            info = HfApi().repo_info(source.repo, **which, files_metadata=True, timeout=LISTING_TIMEOUT)
        except (OfflineModeIsEnabled, httpx2.TransportError, HfHubHTTPError) as error:
            answered = isinstance(error, HfHubHTTPError) and error.response.status_code < 500
            listing = None if answered else cached_listing(source)
            if listing is None:
                raise
            offline = isinstance(error, OfflineModeIsEnabled)
            reason = "HF_HUB_OFFLINE is set" if offline else f"no connection to {endpoint()}"
            print(f"fetch: {reason}: using the files of {source.repo} in the cache", flush=True)
            return listing
        siblings = info.siblings or []
        files = [Item(file.rfilename, file.size, file.lfs and file.lfs.sha256, file.blob_id) for file in siblings]
        # These become paths in the cache: from a server, only hexadecimal digits are accepted.
        valid = all(GIT_OR_SHA256.fullmatch(str(name)) for name in (info.sha, *(file.etag for file in files)))
        if not valid or any(file.size is None for file in files):
            raise ValueError("no commit, or files without digest or size")
        listing = Listing(info.sha, {file.name: file for file in files})
        cache_listing(source, listing)
    return listing


def cache_listing(source: FetchSource, listing: Listing) -> None:
    """Write the listing to the cache, at the path and in the format of huggingface_hub's own listings."""
    if source.revision != listing.commit:
        write_text(repo_cache(source) / "refs" / source.revision, listing.commit)
    path = repo_cache(source) / "trees" / f"{listing.commit}.json"
    if not path.exists():
        files: dict[str, dict[str, Any]] = {}
        for name, item in sorted(listing.items.items()):
            lfs = {"lfs_sha256": item.sha256, "lfs_size": item.size} if item.sha256 else {}
            files[name] = {"size": item.size, "blob_id": item.git_id or "", **lfs}
        write_json(path, {"format_version": 1, "files": files})


def cached_listing(source: FetchSource) -> Listing | None:
    """The listing in the cache; where there is none, the files of the snapshot in the cache; None without any."""
    from huggingface_hub import get_cached_repo_tree, resolve_revision
    from huggingface_hub.errors import CachedRepoTreeNotFoundError, RevisionResolutionError

    which = {"repo_type": source.kind, "revision": source.revision}
    try:
        commit = resolve_revision(source.repo, **which, local_files_only=True).resolved
        tree = get_cached_repo_tree(source.repo, repo_type=source.kind, revision=commit)
    except RevisionResolutionError:
        return None
    except CachedRepoTreeNotFoundError:
        snapshot = repo_cache(source) / "snapshots" / commit
        files = [path for path in sorted(snapshot.rglob("*")) if path.is_file()]
        items = [snapshot_item(path, path.relative_to(snapshot).as_posix()) for path in files]
    else:
        items = [Item(file.path, file.size, file.lfs and file.lfs.sha256, file.blob_id) for file in tree]
    return Listing(commit, {item.name: item for item in items}, online=False) if items else None


def snapshot_item(path: Path, name: str) -> Item:
    """A file of a snapshot in the cache: a link to a blob, whose name is its digest."""
    blob = path.resolve().name
    return Item(name, path.stat().st_size, blob if len(blob) == 64 else None, blob if len(blob) == 40 else None)


def repo_cache(source: FetchSource) -> Path:
    """The folder of a repository in huggingface_hub's cache."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=source.repo, repo_type=source.kind)


def cached(role: Role, item: Item) -> Path | None:
    """The path of the item in the cache: in the snapshot, or the blob if another commit has the same content."""
    snapshot = snapshot_path(role, item)
    blob = repo_cache(role.source) / "blobs" / str(item.etag)
    candidates = [snapshot, blob] if role.listing.online else [snapshot]
    return next((path for path in candidates if path.is_file() and path.stat().st_size == item.size), None)


def snapshot_path(role: Role, item: Item) -> Path:
    return repo_cache(role.source) / "snapshots" / role.listing.commit / item.name


def partial_file(role: Role, item: Item) -> Path:
    """The file that a download is written to; `hf cache prune` deletes abandoned files with this suffix."""
    return repo_cache(role.source) / "blobs" / f"{item.etag}.fetch.incomplete"
