"""Which files are needed: roles, and the names that their `files` stand for."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from stages.common.config.fetch import FetchSource
from stages.common.config.params import Params
from stages.common.core.errors import InputError

FOR_PREPARE = ("pretrain_data", "pretrain_images", "sft_data", "sft_images", "photographs")


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
    """The names that the role's `files` stand for; of alternatives `a|b` the first that ``find`` finds.

    An empty one stands for nothing: `a|` may be missing.
    """
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
