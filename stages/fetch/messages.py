"""What the stage says: its errors as sentences, sizes as people read them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from stages.common.core.errors import InputError
from stages.fetch.roles import Role


@contextmanager
def hub_errors(role: Role) -> Iterator[None]:
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


def endpoint() -> str:
    """The Hub's address without what must not be printed: a mirror's may hold a password."""
    from huggingface_hub import constants

    parts = urlsplit(constants.ENDPOINT)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def format_bytes(size: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} B"
