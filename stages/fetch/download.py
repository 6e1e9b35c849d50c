"""Downloads from the Hub into huggingface_hub's cache: disk space, resuming, verification.

Downloads go over plain HTTP into our own partial files: huggingface_hub deletes its partial files when a process ends,
and a download of gigabytes must resume where it stopped. A file is added to the cache once its digest matches the
Hub's. A file that is in the cache already is verified too, unless the previous run's manifest has its digest.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from stages.common.core.errors import InputError
from stages.common.core.files import free_bytes
from stages.fetch.hub import cached, partial_file, repo_cache, snapshot_path
from stages.fetch.local import digests
from stages.fetch.messages import endpoint, format_bytes
from stages.fetch.roles import Item, Role

PAUSES = (1, 2, 4, 8)  # seconds before each retry, while retries receive no new bytes


def print_table(roles: list[Role]) -> None:
    """Print, for each role, its origin, its number of files, their size, and whether they are in the cache."""
    rows = [("role", "from", "files", "size", "")]
    for role in roles:
        files = sum(item.count or 1 for item in role.items)
        available = sum(item.count or 1 for item in role.items if not role.listing or cached(role, item))
        state = "local" if not role.listing else "in the cache" if available == files else "to download"
        if role.listing and 0 < available < files:
            state = f"to download, {available} in the cache"
        size = format_bytes(sum(item.size for item in role.items))
        rows.append((role.param.removeprefix("fetch."), role.origin, str(files), size, state))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for name, origin, files, size, state in rows:
        line = f"{name:<{widths[0]}}  {origin:<{widths[1]}}  {files:>{widths[2]}}  {size:>{widths[3]}}  {state}"
        print(line.rstrip())


def missing_bytes(roles: list[Role]) -> int:
    """Bytes still to be downloaded; content that several roles use is counted once."""
    missing = {}
    for role in roles:
        for item in role.items:
            if cached(role, item) is None:
                partial = partial_file(role, item)
                missing[partial] = max(item.size - (partial.stat().st_size if partial.exists() else 0), 0)
    return sum(missing.values())


def require_space(roles: list[Role]) -> None:
    """Print the size of the downloads and the free disk space; raises InputError if the space is too small."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    folder = next(folder for folder in (cache, *cache.absolute().parents) if folder.exists())
    missing, free = missing_bytes(roles), free_bytes(folder)
    print(f"fetch: {format_bytes(missing)} to download, {format_bytes(free)} free at {cache}", flush=True)
    if missing > free:
        raise InputError(
            f"{format_bytes(missing)} are to be downloaded, but the disk of {cache} has {format_bytes(free)} free: "
            "free some space, or set HF_HOME to a folder on a larger disk"
        )


def obtain(role: Role, item: Item, verified: set[str]) -> Item:
    """Download the item if it is not in the cache, and verify it; returns the item with its SHA-256.

    ``verified``: SHA-256 digests of files that need not be verified again. Raises InputError.
    """
    from huggingface_hub import hf_hub_download

    path = cached(role, item)
    if path is None:
        if not role.listing.online:
            raise InputError(
                f"{role.param}: {item.name} of {role.origin} is not in the cache, and there is no connection to "
                f"{endpoint()} to download it: run this once with a connection"
            )
        sha256 = download(role, item)
    elif item.sha256 in verified:
        sha256 = item.sha256
    else:
        sha256 = check(role, item, path)
    # The content is in the cache: this only links it into the snapshot under its name.
    hf_hub_download(role.source.repo, item.name, repo_type=role.source.kind, revision=role.listing.commit)
    return Item(item.name, item.size, sha256)


def check(role: Role, item: Item, path: Path) -> str:
    """Verify a file; returns its SHA-256. Deletes it and raises InputError if its digest is not the Hub's."""
    sha256, git_id = digests(path, item.name, git=item.sha256 is None)
    expected, actual = (item.sha256, sha256) if item.sha256 else (item.git_id, git_id)
    if expected is not None and expected != actual:
        for damaged in (path.resolve(), path):  # a snapshot's file is a link to the content
            damaged.unlink(missing_ok=True)
        raise InputError(
            f"{role.param}: {item.name} of {role.origin} is damaged: its digest is {actual}, but the Hub's is "
            f"{expected}; it was deleted, run the same command again"
        )
    return sha256


def download(role: Role, item: Item) -> str:
    """Download and verify the content of an item, add it to the cache, and return its SHA-256. Raises InputError."""
    from huggingface_hub.utils import WeakFileLock

    partial = partial_file(role, item)
    partial.parent.mkdir(parents=True, exist_ok=True)
    # huggingface_hub's own lock for this content: another process that needs it waits instead of downloading it too.
    folder = repo_cache(role.source)
    lock = folder.parent / ".locks" / folder.name / f"{item.etag}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if (path := cached(role, item)) is not None:
            return check(role, item, path)
        receive(role, item, partial)
        snapshot_path(role, item).unlink(missing_ok=True)  # it links to content of another size
        sha256 = check(role, item, partial)
        os.replace(partial, partial.with_name(str(item.etag)))
    return sha256


def receive(role: Role, item: Item, partial: Path) -> None:
    """Download until ``partial`` has the item's size, resuming after broken connections.

    Raises InputError after several retries that received nothing.
    """
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import tqdm as hub_tqdm

    partial.touch()
    if partial.stat().st_size > item.size:
        partial.write_bytes(b"")
    tries = 0
    with hub_tqdm(total=item.size, unit="B", unit_scale=True, desc=item.name, initial=partial.stat().st_size) as bar:
        while (received := partial.stat().st_size) < item.size:
            reason = "the connection ended early"
            try:
                receive_rest(role, item, partial, received, bar)
            except httpx2.TransportError as error:
                reason = "no answer" if isinstance(error, httpx2.TimeoutException) else "the connection broke"
            except HfHubHTTPError as error:
                if error.response.status_code not in (408, 429) and error.response.status_code < 500:
                    raise
                reason = f"the server answered {error.response.status_code}"
            now = partial.stat().st_size
            if now >= item.size:
                return
            tries = 0 if now > received else tries + 1
            if tries > len(PAUSES):
                raise InputError(
                    f"{role.param}: {item.name} of {role.origin}: {reason} {len(PAUSES) + 1} times, "
                    f"{format_bytes(now)} of {format_bytes(item.size)} downloaded; run the same command again to resume"
                )
            pause = PAUSES[max(tries - 1, 0)]
            bar.write(f"fetch: {item.name}: {reason} at {format_bytes(now)}; retrying in {pause} s")
            time.sleep(pause)


def receive_rest(role: Role, item: Item, partial: Path, received: int, bar: Any) -> None:
    """One request for the item's bytes from position ``received`` on, which are appended to ``partial``."""
    from huggingface_hub import constants, get_session, hf_hub_url, hf_raise_for_status
    from huggingface_hub.utils import build_hf_headers

    which = {"repo_type": role.source.kind, "revision": role.listing.commit}
    url = hf_hub_url(role.source.repo, item.name, **which)
    headers = build_hf_headers() | {"Accept-Encoding": "identity"}  # a range counts bytes of the uncompressed file
    if received:
        headers["Range"] = f"bytes={received}-"
    with get_session().stream("GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT) as response:
        hf_raise_for_status(response)
        resumed = response.status_code == 206
        with partial.open("ab" if resumed else "wb") as file:
            if not resumed:
                bar.update(-bar.n)
            for chunk in response.iter_bytes():
                file.write(chunk)
                bar.update(len(chunk))
