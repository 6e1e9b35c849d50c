"""Error messages for failures of the Hub and the network; readable sizes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from stages.common.core.errors import InputError
from stages.fetch.roles import Role


@contextmanager
def hub_errors(role: Role) -> Iterator[None]:
    """Errors of the Hub and the network become InputErrors with the role's parameter, the fault and a remedy."""
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
        message = f"{source.repo} is not in the cache and HF_HUB_OFFLINE is set; unset it, or give a local folder"
    except GatedRepoError:
        message = (
            f"access to {source.repo} is gated: accept its terms at {endpoint()}/{source.repo}, "
            "then log in with `hf auth login` or set HF_TOKEN"
        )
    except RepositoryNotFoundError:
        message = (
            f"there is no local folder '{source.repo}', and {endpoint()} has no {source.kind} '{source.repo}' that you "
            "can access; check repo and kind; for a private one, log in with `hf auth login` or set HF_TOKEN"
        )
    except RevisionNotFoundError:
        message = f"{source.repo} has no revision '{source.revision}'; give one of its branches, tags or commits"
    except HfHubHTTPError as error:
        status = error.response.status_code
        advice = "check the token (HF_TOKEN, `hf auth login`)" if status in (401, 403) else "check repo and HF_ENDPOINT"
        if status in (408, 429) or status >= 500:
            advice = "try again later"
        message = f"{endpoint()} answered {status} when asked for {source.repo}; {advice}"
    except HFValidationError:
        message = f"'{source.repo}' is neither a local folder nor an id on the Hub (owner/name)"
    except (httpx2.TransportError, httpx2.InvalidURL, LocalEntryNotFoundError):
        message = (
            f"no connection to {endpoint()} for {source.repo}; check the network, set HF_ENDPOINT to a mirror, "
            "or give a local folder"
        )
    except ValueError:
        message = (
            f"{endpoint()} does not answer like a Hub; check HF_ENDPOINT, and whether the network has a login page"
        )
    except OSError as error:
        message = f"{error.filename or source.repo}: {error.strerror or error}"
    raise InputError(f"{role.param}: {message}") from None


def endpoint() -> str:
    """The Hub's address without user name and password, which a mirror's address may contain."""
    from huggingface_hub import constants

    parts = urlsplit(constants.ENDPOINT)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def format_bytes(size: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} B"
