"""Roles: which files are needed for what, and which names their `files` match."""

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
    """A file, or a local folder, that a role needs; digests are None where they are unknown."""

    name: str
    size: int  # bytes
    sha256: str | None = None
    git_id: str | None = None  # the digest that git, and so the Hub, has of a file that is not in LFS
    count: int | None = None  # files of a local folder; None for a file

    @property
    def etag(self) -> str | None:
        """The blob's name in the Hub's cache."""
        return self.sha256 or self.git_id


@dataclass(frozen=True)
class Listing:
    """The files of a repository at ``commit``; ``online``: listed by the Hub in this run, not read from the cache."""

    commit: str
    items: dict[str, Item]
    online: bool = True


@dataclass
class Role:
    """What some files are needed for, and the files; ``listing`` is None for a local folder."""

    stage: str
    name: str
    source: FetchSource
    listing: Listing | None = None
    items: list[Item] = field(default_factory=list)

    @property
    def param(self) -> str:
        """The role's parameter in params.yaml."""
        return f"fetch.models.{self.name}" if self.stage == "models" else f"fetch.{self.name}"

    @property
    def origin(self) -> str:
        """The repository with its commit, or the local folder."""
        return f"{self.source.repo}@{self.listing.commit[:8]}" if self.listing else self.source.repo


def needed_roles(params: Params) -> list[Role]:
    """The roles whose files the stages will read, in a fixed order; roles without files are omitted."""
    fetch = params.fetch
    sources = [("prepare", name, getattr(fetch, name)) for name in FOR_PREPARE if params.data.source != "world"]
    for stage in ("tokenizer", "vision", "language"):
        if getattr(params, stage).source == "fetch":
            sources.append((stage, stage, getattr(fetch, stage)))
    sources += [("models", name, source) for name, source in sorted(fetch.models.items())]
    return [Role(*source) for source in sources if source[2].files]


def matches(name: str, pattern: str) -> bool:
    """Whether a file's path matches ``pattern`` as in a shell: `*` matches within a folder, `**` across folders.

    The name of a folder matches everything in it.
    """
    return name.startswith(f"{pattern.rstrip('/')}/") or _parts_match(
        PurePosixPath(name).parts, PurePosixPath(pattern).parts
    )


def _parts_match(name: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    if not name or not pattern:
        return not name and set(pattern) <= {"**"}
    if pattern[0] == "**":
        return _parts_match(name, pattern[1:]) or _parts_match(name[1:], pattern)
    hidden = name[0].startswith(".") and not pattern[0].startswith(".")
    return not hidden and fnmatch.fnmatchcase(name[0], pattern[0]) and _parts_match(name[1:], pattern[1:])


def choose(role: Role, find: Callable[[str], list[str]], names: Callable[[], Iterable[str]]) -> list[str]:
    """The names that the role's `files` match; of alternatives `a|b`, the first one for which ``find`` returns names.

    An empty alternative matches nothing: the file of `a|` is optional. Raises InputError, with a few of ``names`` as
    suggestions, if no alternative is found.
    """
    chosen: dict[str, None] = {}
    for entry in role.source.files:
        alternatives = [alternative.strip() for alternative in entry.split("|")]
        found = next((found for name in alternatives if (found := find(name) if name else []) or not name), None)
        if found is None:
            raise InputError(
                f"{role.param}.files: {role.origin} has no '{entry}'{suggestions(alternatives[0], names())}; "
                "give another file or another revision"
            )
        chosen |= dict.fromkeys(found)
    return list(chosen)


def suggestions(missing: str, names: Iterable[str], most: int = 5) -> str:
    """`` (it has ...)``: names similar to ``missing``, then those with the same suffix, then others."""
    names = sorted(name for name in names if not PurePosixPath(name).name.startswith("."))
    similar = difflib.get_close_matches(missing, names, n=most, cutoff=0.6)
    similar += [name for name in names if PurePosixPath(name).suffix == PurePosixPath(missing).suffix] + names
    shown = list(dict.fromkeys(similar))[:most]
    return f" (it has {', '.join(shown)}{', ...' if len(names) > most else ''})" if shown else " (it is empty)"
