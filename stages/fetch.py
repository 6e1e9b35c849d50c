"""Stage fetch: what other stages need from the Hugging Face Hub, or from folders on this machine.

in: the Hub, local folders; params fetch, data.source, tokenizer.source, vision.source, language.source
out: data/fetched, one manifest for each stage that uses what was fetched

No file is copied: one from the Hub stays in huggingface_hub's cache, pinned by its commit, one from a local folder
where it lies. A manifest names them with their sizes and SHA-256 digests, so its bytes change when content does and
only then. A local folder of pictures is one entry, whose digest is over its files' names, sizes and modification
times: reading half a million pictures would take longer than the stages that use them.

Downloads go over plain HTTP into a partial file of our own: huggingface_hub throws its partial files away when a
process ends, and a download of gigabytes must go on where it stopped. A file enters the cache once its digest is the
Hub's. A file found in the cache is hashed too, unless the manifest of the run before holds that digest.
"""

from __future__ import annotations

import difflib
import fnmatch
import glob
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from tqdm import tqdm

from stages.common.errors import InputError, run_stage
from stages.common.fetched import FETCHED
from stages.common.files import free_bytes, whole_folder, write_json, write_text
from stages.common.params import FetchSource, Params, load_params

STAGES = ("prepare", "tokenizer", "vision", "language", "models")
FOR_PREPARE = ("pretrain_data", "pretrain_images", "sft_data", "sft_images", "photographs")
PAUSES = (1, 2, 4, 8)  # seconds before another try, as long as a connection brings nothing new
LISTING_TIMEOUT = 30  # seconds
GIT_OR_SHA256 = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
SLOW_TO_HASH = 200_000_000  # bytes from which hashing shows its progress


@dataclass(frozen=True)
class Item:
    """A file, or a local folder (``count``), that a role needs; digests as far as they are known."""

    name: str
    size: int
    sha256: str | None = None
    git_id: str | None = None  # by which git, and so the Hub, names a file that is not in LFS
    count: int | None = None

    @property
    def etag(self) -> str | None:
        """The blob's name in the Hub's cache."""
        return self.sha256 or self.git_id


@dataclass(frozen=True)
class Listing:
    """What a repository holds at ``commit``; ``online``: said so by the Hub just now, not remembered by the cache."""

    commit: str
    items: dict[str, Item]
    online: bool = True


@dataclass
class Role:
    """One role's files; ``listing`` is None for a local folder."""

    stage: str
    name: str
    source: FetchSource
    listing: Listing | None = None
    items: list[Item] = field(default_factory=list)

    @property
    def param(self) -> str:
        return f"fetch.models.{self.name}" if self.stage == "models" else f"fetch.{self.name}"

    @property
    def place(self) -> str:
        return f"{self.source.repo}@{self.listing.commit[:8]}" if self.listing else self.source.repo


# What is needed


def needed_roles(params: Params) -> list[Role]:
    """The roles whose files the stages will ask for, in a fixed order; a role without files is left out."""
    fetch = params.fetch
    sources = [("prepare", name, getattr(fetch, name)) for name in FOR_PREPARE if params.data.source != "world"]
    for stage in ("tokenizer", "vision", "language"):
        if getattr(params, stage).source == "fetch":
            sources.append((stage, stage, getattr(fetch, stage)))
    sources += [("models", name, source) for name, source in sorted(fetch.models.items())]
    return [Role(*source) for source in sources if source[2].files]


def matches(name: str, pattern: str) -> bool:
    """Whether a repository's file fits ``pattern`` as in a shell: `*` stays in its folder, `**` does not.

    A folder's name stands for everything below it.
    """
    return name.startswith(f"{pattern.rstrip('/')}/") or _fits(PurePosixPath(name).parts, PurePosixPath(pattern).parts)


def _fits(name: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    if not name or not pattern:
        return not name and set(pattern) <= {"**"}
    if pattern[0] == "**":
        return _fits(name, pattern[1:]) or _fits(name[1:], pattern)
    hidden = name[0].startswith(".") and not pattern[0].startswith(".")
    return not hidden and fnmatch.fnmatchcase(name[0], pattern[0]) and _fits(name[1:], pattern[1:])


def choose(role: Role, find: Callable[[str], list[str]], names: Callable[[], Iterable[str]]) -> list[str]:
    """The names that the role's `files` stand for; of alternatives `a|b` the first that ``find`` finds, and nothing for
    an empty one: `a|` need not be there."""
    chosen: dict[str, None] = {}
    for entry in role.source.files:
        alternatives = [alternative.strip() for alternative in entry.split("|")]
        found = next((found for name in alternatives if (found := find(name) if name else []) or not name), None)
        if found is None:
            raise InputError(
                f"{role.param}.files: {role.place} has no '{entry}'{near_by(alternatives[0], names())}; "
                "name another file or another revision"
            )
        chosen |= dict.fromkeys(found)
    return list(chosen)


def near_by(missing: str, names: Iterable[str], most: int = 5) -> str:
    """`` (it has ...)``: the names most like ``missing``, others of its kind after them."""
    names = sorted(name for name in names if not PurePosixPath(name).name.startswith("."))
    like = difflib.get_close_matches(missing, names, n=most, cutoff=0.6)
    like += [name for name in names if PurePosixPath(name).suffix == PurePosixPath(missing).suffix] + names
    shown = list(dict.fromkeys(like))[:most]
    return f" (it has {', '.join(shown)}{', ...' if len(names) > most else ''})" if shown else " (it is empty)"


# Local folders


def local_items(role: Role) -> list[Item]:
    folder = Path(role.source.repo).expanduser()

    def find(pattern: str) -> list[str]:
        name = pattern.rstrip("/")
        if name and (folder / name).exists():
            return [name]
        return sorted(name for name in glob.glob(pattern, root_dir=folder, recursive=True) if (folder / name).is_file())

    def beside() -> list[str]:
        return os.listdir(folder)

    try:
        return [local_item(folder / name, name) for name in choose(role, find, beside)]
    except OSError as error:
        raise InputError(f"{role.param}: {error.filename} cannot be read: {error.strerror}") from None


def local_item(path: Path, name: str) -> Item:
    if not path.is_dir():
        return Item(name, path.stat().st_size, digests(path, name)[0])
    lines, size = [], 0
    for parent, folders, files in os.walk(path):
        folders.sort()
        for file in files:
            stat = os.stat(os.path.join(parent, file))
            relative = os.path.relpath(os.path.join(parent, file), path)
            lines.append(f"{relative}\0{stat.st_size}\0{stat.st_mtime_ns}\n")
            size += stat.st_size
    digest = hashlib.sha256("".join(sorted(lines)).encode("utf-8", "surrogateescape"))
    return Item(name, size, digest.hexdigest(), count=len(lines))


def digests(path: Path, name: str, git: bool = False) -> tuple[str, str]:
    """SHA-256 of a file's bytes, and its git id where ``git``."""
    size = path.stat().st_size
    sha256, sha1 = hashlib.sha256(), hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    bar = tqdm(total=size, unit="B", unit_scale=True, desc=f"check {name}", disable=size < SLOW_TO_HASH)
    with path.open("rb") as file, bar:
        while block := file.read(1 << 20):
            sha256.update(block)
            if git:
                sha1.update(block)
            bar.update(len(block))
    return sha256.hexdigest(), sha1.hexdigest()


# The Hub


def hub_listing(role: Role) -> Listing:
    """What the repository holds; without a connection, what the cache remembers of it."""
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    source = role.source
    with sentences(role):
        try:
            which = {"repo_type": source.kind, "revision": source.revision}
            info = HfApi().repo_info(source.repo, **which, files_metadata=True, timeout=LISTING_TIMEOUT)
        except (OfflineModeIsEnabled, httpx2.TransportError, HfHubHTTPError) as error:
            answered = isinstance(error, HfHubHTTPError) and error.response.status_code < 500
            remembered = None if answered else remembered_listing(source)
            if remembered is None:
                raise
            offline = isinstance(error, OfflineModeIsEnabled)
            why = "HF_HUB_OFFLINE is set" if offline else f"no connection to {endpoint()}"
            print(f"fetch: {why}: what the cache holds of {source.repo} is used", flush=True)
            return remembered
        held = info.siblings or []
        files = [Item(file.rfilename, file.size, file.lfs and file.lfs.sha256, file.blob_id) for file in held]
        # These become paths in the cache, so that nothing but hexadecimal digits is taken from a server.
        named = all(GIT_OR_SHA256.fullmatch(str(name)) for name in (info.sha, *(file.etag for file in files)))
        if not named or any(file.size is None for file in files):
            raise ValueError("no commit, or files without digest or size")
        listing = Listing(info.sha, {file.name: file for file in files})
        remember(source, listing)
    return listing


def remember(source: FetchSource, listing: Listing) -> None:
    """Leaves the listing in the cache, in the places and the form that huggingface_hub keeps its own in."""
    if source.revision != listing.commit:
        write_text(repo_cache(source) / "refs" / source.revision, listing.commit)
    path = repo_cache(source) / "trees" / f"{listing.commit}.json"
    if not path.exists():
        files: dict[str, dict[str, Any]] = {}
        for name, item in sorted(listing.items.items()):
            lfs = {"lfs_sha256": item.sha256, "lfs_size": item.size} if item.sha256 else {}
            files[name] = {"size": item.size, "blob_id": item.git_id or "", **lfs}
        write_json(path, {"format_version": 1, "files": files})


def remembered_listing(source: FetchSource) -> Listing | None:
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
    """A file of a snapshot in the cache, whose link leads to a blob named by its digest."""
    blob = path.resolve().name
    return Item(name, path.stat().st_size, blob if len(blob) == 64 else None, blob if len(blob) == 40 else None)


def repo_cache(source: FetchSource) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=source.repo, repo_type=source.kind)


def cached(role: Role, item: Item) -> Path | None:
    """The item in the cache; where only its content is there, as part of another commit, the blob."""
    snapshot = snapshot_path(role, item)
    blob = repo_cache(role.source) / "blobs" / str(item.etag)
    there = [snapshot, blob] if role.listing.online else [snapshot]
    return next((path for path in there if path.is_file() and path.stat().st_size == item.size), None)


def snapshot_path(role: Role, item: Item) -> Path:
    return repo_cache(role.source) / "snapshots" / role.listing.commit / item.name


def partial_file(role: Role, item: Item) -> Path:
    """Where a download gathers; `hf cache prune` knows the ending and removes what was left behind."""
    return repo_cache(role.source) / "blobs" / f"{item.etag}.fetch.incomplete"


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
                    f"{role.param}: {item.name} of {role.place}: {why} {len(PAUSES) + 1} times, {in_bytes(now)} of "
                    f"{in_bytes(item.size)} are there; run the same command again, it goes on from them"
                )
            pause = PAUSES[max(tries - 1, 0)]
            bar.write(f"fetch: {item.name}: {why} at {in_bytes(now)}; going on in {pause} s")
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


def endpoint() -> str:
    """The Hub's address without what must not be printed: a mirror's may hold a password."""
    from huggingface_hub import constants

    parts = urlsplit(constants.ENDPOINT)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


@contextmanager
def sentences(role: Role) -> Iterator[None]:
    """Errors of the Hub and of the network become InputErrors: which role, what is wrong, what to do."""
    import httpx2
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    source = role.source
    try:
        yield
        return
    except InputError:
        raise
    except OfflineModeIsEnabled:
        message = f"{source.repo} is not in the cache and HF_HUB_OFFLINE is set; unset it, or name a local folder"
    except GatedRepoError:
        message = (
            f"{source.repo} is open only to those who accept its terms: accept them at {endpoint()}/{source.repo}, "
            "then log in with `hf auth login` or set HF_TOKEN"
        )
    except RepositoryNotFoundError:
        message = (
            f"there is no folder '{source.repo}' here, and {endpoint()} has no {source.kind} '{source.repo}' that you "
            "may read; check repo and kind, and for a private one log in with `hf auth login` or set HF_TOKEN"
        )
    except RevisionNotFoundError:
        message = f"{source.repo} has no revision '{source.revision}'; name one of its branches, tags or commits"
    except HfHubHTTPError as error:
        status = error.response.status_code
        advice = "check the token (HF_TOKEN, `hf auth login`)" if status in (401, 403) else "check repo and HF_ENDPOINT"
        if status in (408, 429) or status >= 500:
            advice = "try again later"
        message = f"{endpoint()} answered {status} when asked for {source.repo}; {advice}"
    except HFValidationError:
        message = f"'{source.repo}' is neither a folder on this machine nor an id on the Hub (owner/name)"
    except (httpx2.TransportError, httpx2.InvalidURL, LocalEntryNotFoundError):
        message = (
            f"no connection to {endpoint()} for {source.repo}; check the network (HF_ENDPOINT names a mirror), "
            "or name a local folder"
        )
    except ValueError:
        message = f"{endpoint()} does not answer as a Hub does; check HF_ENDPOINT and whether a log-in page is between"
    except OSError as error:
        message = f"{error.filename or source.repo}: {error.strerror or error}"
    raise InputError(f"{role.param}: {message}") from None


# The stage


def find_items(roles: list[Role]) -> None:
    """Fills in what each role stands for; one question to the Hub for each repository."""
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
        role.items = hub_items(role, role.listing.items)


def hub_items(role: Role, held: dict[str, Item]) -> list[Item]:
    def find(pattern: str) -> list[str]:
        return [pattern] if pattern in held else sorted(name for name in held if matches(name, pattern))

    return [held[name] for name in choose(role, find, lambda: held)]


def missing_bytes(roles: list[Role]) -> int:
    """What is still to be downloaded; content that several roles name counts once."""
    missing = {}
    for role in roles:
        for item in role.items if role.listing else []:
            if cached(role, item) is None:
                partial = partial_file(role, item)
                missing[partial] = max(item.size - (partial.stat().st_size if partial.exists() else 0), 0)
    return sum(missing.values())


def print_table(roles: list[Role]) -> None:
    rows = [("role", "from", "files", "size", "")]
    for role in roles:
        files = sum(item.count or 1 for item in role.items)
        there = sum(item.count or 1 for item in role.items if not role.listing or cached(role, item))
        state = "local" if not role.listing else "in the cache" if there == files else "to download"
        if role.listing and 0 < there < files:
            state = f"to download, {there} in the cache"
        size = in_bytes(sum(item.size for item in role.items))
        rows.append((role.param.removeprefix("fetch."), role.place, str(files), size, state))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for name, place, files, size, state in rows:
        line = f"{name:<{widths[0]}}  {place:<{widths[1]}}  {files:>{widths[2]}}  {size:>{widths[3]}}  {state}"
        print(line.rstrip())


def need_space(roles: list[Role]) -> None:
    """Prints what is to be downloaded and what the disk has left; raises InputError where that is too little."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    folder = next(folder for folder in (cache, *cache.absolute().parents) if folder.exists())
    missing, free = missing_bytes(roles), free_bytes(folder)
    print(f"fetch: {in_bytes(missing)} to download, {in_bytes(free)} free at {cache}", flush=True)
    if missing > free:
        raise InputError(
            f"{in_bytes(missing)} are to be downloaded and the disk of {cache} has {in_bytes(free)} free: "
            "free some space, or set HF_HOME to a folder on a larger disk"
        )


def in_bytes(size: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} B"


def entry_of(role: Role) -> dict[str, Any]:
    """What the manifest says of a role. No revision: a branch's name and the commit it means are the same content."""
    files = [
        {"name": item.name, "size": item.size, "sha256": item.sha256}
        if item.count is None
        else {"name": item.name, "count": item.count, "size": item.size, "digest": item.sha256}
        for item in role.items
    ]
    if role.listing is None:
        return {"source": "local", "repo": role.source.repo, "files": files}
    return {
        "source": "hub",
        "repo": role.source.repo,
        "kind": role.source.kind,
        "commit": role.listing.commit,
        "files": files,
    }


def verified_before() -> set[str]:
    """SHA-256 digests in the manifests of the run before: files found right then."""
    found: set[str] = set()
    for path in FETCHED.glob("*.json"):
        try:
            for entry in json.loads(path.read_text(encoding="utf-8")).values():
                found |= {file["sha256"] for file in entry["files"] if entry["source"] == "hub"}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # whatever it is, it vouches for nothing
    return found


def main() -> None:
    params = load_params()
    roles = needed_roles(params)
    if not roles:
        print("fetch: nothing to fetch, every stage makes its own", flush=True)
    find_items(roles)
    if roles:
        print_table(roles)
    if any(role.listing for role in roles):
        need_space(roles)
        verified = verified_before()
        for role in roles:
            if role.listing:
                with sentences(role):
                    role.items = [obtain(role, item, verified) for item in role.items]
                verified |= {item.sha256 for item in role.items}
    with whole_folder(FETCHED) as folder:
        for stage in STAGES:
            write_json(folder / f"{stage}.json", {role.name: entry_of(role) for role in roles if role.stage == stage})


if __name__ == "__main__":
    run_stage(main)
