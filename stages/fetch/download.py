"""From the Hub into the cache: what it will take, receiving, going on after a break, checking.

Downloads go over plain HTTP into a partial file of our own: huggingface_hub throws its partial files away when a
process ends, and a download of gigabytes must go on where it stopped. A file enters the cache once its digest is the
Hub's. A file found in the cache is hashed too, unless the manifest of the run before holds that digest.
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

PAUSES = (1, 2, 4, 8)  # seconds before another try, as long as a connection brings nothing new


def print_table(roles: list[Role]) -> None:
    rows = [("role", "from", "files", "size", "")]
    for role in roles:
        files = sum(item.count or 1 for item in role.items)
        there = sum(item.count or 1 for item in role.items if not role.listing or cached(role, item))
        state = "local" if not role.listing else "in the cache" if there == files else "to download"
        if role.listing and 0 < there < files:
            state = f"to download, {there} in the cache"
        size = format_bytes(sum(item.size for item in role.items))
        rows.append((role.param.removeprefix("fetch."), role.place, str(files), size, state))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for name, place, files, size, state in rows:
        line = f"{name:<{widths[0]}}  {place:<{widths[1]}}  {files:>{widths[2]}}  {size:>{widths[3]}}  {state}"
        print(line.rstrip())


def missing_bytes(roles: list[Role]) -> int:
    """What is still to be downloaded; content that several roles name counts once."""
    missing = {}
    for role in roles:
        for item in role.items:
            if cached(role, item) is None:
                partial = partial_file(role, item)
                missing[partial] = max(item.size - (partial.stat().st_size if partial.exists() else 0), 0)
    return sum(missing.values())


def require_space(roles: list[Role]) -> None:
    """Prints what is to be downloaded and what the disk has left; raises InputError where that is too little."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    folder = next(folder for folder in (cache, *cache.absolute().parents) if folder.exists())
    missing, free = missing_bytes(roles), free_bytes(folder)
    print(f"fetch: {format_bytes(missing)} to download, {format_bytes(free)} free at {cache}", flush=True)
    if missing > free:
        raise InputError(
            f"{format_bytes(missing)} are to be downloaded and the disk of {cache} has {format_bytes(free)} free: "
            "free some space, or set HF_HOME to a folder on a larger disk"
        )


def obtain(role: Role, item: Item, verified: set[str]) -> Item:
    """Has the item in the cache, with the content that the Hub says it has; the same item with its SHA-256."""
    from huggingface_hub import hf_hub_download

    path = cached(role, item)
    if path is None:
        if not role.listing.online:
            raise InputError(
                f"{role.param}: {item.name} of {role.place} is not in the cache, and there is no connection to "
                f"{endpoint()} to download it: run this once with a connection"
            )
        sha256 = download(role, item)
    elif item.sha256 in verified:
        sha256 = item.sha256
    else:
        sha256 = check(role, item, path)
    # Whose content is in the cache already: this only gives it its name in the snapshot.
    hf_hub_download(role.source.repo, item.name, repo_type=role.source.kind, revision=role.listing.commit)
    return Item(item.name, item.size, sha256)


def check(role: Role, item: Item, path: Path) -> str:
    """The file's SHA-256. Content other than the Hub's is removed, and raises InputError."""
    sha256, git_id = digests(path, item.name, git=item.sha256 is None)
    expected, got = (item.sha256, sha256) if item.sha256 else (item.git_id, git_id)
    if expected is not None and expected != got:
        for wrong in (path.resolve(), path):  # a snapshot's file is a link to the content
            wrong.unlink(missing_ok=True)
        raise InputError(
            f"{role.param}: {item.name} of {role.place} is damaged: its digest is {got}, the Hub says {expected}; "
            "it was removed, run the same command again"
        )
    return sha256


def download(role: Role, item: Item) -> str:
    from huggingface_hub.utils import WeakFileLock

    partial = partial_file(role, item)
    partial.parent.mkdir(parents=True, exist_ok=True)
    # huggingface_hub's own lock for this content: another process that wants it waits instead of downloading as well.
    folder = repo_cache(role.source)
    lock = folder.parent / ".locks" / folder.name / f"{item.etag}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if (path := cached(role, item)) is not None:
            return check(role, item, path)
        receive(role, item, partial)
        snapshot_path(role, item).unlink(missing_ok=True)  # what stood there was of another size
        sha256 = check(role, item, partial)
        os.replace(partial, partial.with_name(str(item.etag)))
    return sha256


def receive(role: Role, item: Item, partial: Path) -> None:
    """Downloads until ``partial`` has the item's size, going on where a connection broke."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import tqdm as hub_tqdm

    partial.touch()
    if partial.stat().st_size > item.size:
        partial.write_bytes(b"")
    tries = 0
    with hub_tqdm(total=item.size, unit="B", unit_scale=True, desc=item.name, initial=partial.stat().st_size) as bar:
        while (have := partial.stat().st_size) < item.size:
            why = "the connection ended early"
            try:
                receive_rest(role, item, partial, have, bar)
            except httpx2.TransportError as error:
                why = "no answer" if isinstance(error, httpx2.TimeoutException) else "the connection broke"
            except HfHubHTTPError as error:
                if error.response.status_code not in (408, 429) and error.response.status_code < 500:
                    raise
                why = f"the server answered {error.response.status_code}"
            now = partial.stat().st_size
            if now >= item.size:
                return
            tries = 0 if now > have else tries + 1
            if tries > len(PAUSES):
                raise InputError(
                    f"{role.param}: {item.name} of {role.place}: {why} {len(PAUSES) + 1} times, {format_bytes(now)} of "
                    f"{format_bytes(item.size)} are there; run the same command again, it goes on from them"
                )
            pause = PAUSES[max(tries - 1, 0)]
            bar.write(f"fetch: {item.name}: {why} at {format_bytes(now)}; going on in {pause} s")
            time.sleep(pause)


def receive_rest(role: Role, item: Item, partial: Path, have: int, bar: Any) -> None:
    from huggingface_hub import constants, get_session, hf_hub_url, hf_raise_for_status
    from huggingface_hub.utils import build_hf_headers

    which = {"repo_type": role.source.kind, "revision": role.listing.commit}
    url = hf_hub_url(role.source.repo, item.name, **which)
    headers = build_hf_headers() | {"Accept-Encoding": "identity"}  # positions in a compressed body are other ones
    if have:
        headers["Range"] = f"bytes={have}-"
    with get_session().stream("GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT) as response:
        hf_raise_for_status(response)
        goes_on = response.status_code == 206
        with partial.open("ab" if goes_on else "wb") as file:
            if not goes_on:
                bar.update(-bar.n)
            for chunk in response.iter_bytes():
                file.write(chunk)
                bar.update(len(chunk))
