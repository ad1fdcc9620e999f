"""Files of the Hugging Face hub, through its own library and in its own cache (`HF_HOME`)."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from sslrob.errors import RunFailed, SslrobError

USUAL = "model.safetensors"
BUSY = (408, 429, 500, 502, 503, 504)  # answers that the library's later attempts may not get


class Place(NamedTuple):
    """Of a file on the hub."""

    repository: str
    file: str
    revision: str | None

    @classmethod
    def parse(cls, text: str) -> Place:
        """Of `ORG/NAME[/FILE][@REVISION]`."""
        path, _, revision = text.partition("@")
        organisation, name, *rest = path.split("/", 2)
        return cls(f"{organisation}/{name}", rest[0] if rest else USUAL, revision or None)


def cached(place: Place) -> Path | None:
    """The file in the hub's cache; None if it is not there.  Asks nobody."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(place.repository, place.file, revision=place.revision)
    return Path(found) if isinstance(found, str) else None


def download(place: Place, *, again: bool = False) -> Path:
    """The file in the hub's cache, downloaded if it is not there.

    Args:
        again: download it even so.

    Raises:
        SslrobError: there is no such file, or it is not for everyone.
        RunFailed: no network, or no room.
    """
    from huggingface_hub import errors, get_hf_file_metadata, hf_hub_download, hf_hub_url

    told = f"{place.repository}/{place.file}" + (f"@{place.revision}" if place.revision else "")
    page = f"https://huggingface.co/{place.repository}"
    try:
        with _quiet_off_terminals(), _own_words():
            endpoint = os.environ.get("HF_ENDPOINT") or None
            try:  # one question first: where there is no network, the library asks again and again
                get_hf_file_metadata(
                    hf_hub_url(place.repository, place.file, revision=place.revision, endpoint=endpoint), endpoint=endpoint
                )
            except errors.HfHubHTTPError as error:
                if error.response is None or error.response.status_code not in BUSY:
                    raise
            found = hf_hub_download(
                place.repository,
                place.file,
                revision=place.revision,
                endpoint=endpoint,
                force_download=again,
            )
            return Path(found)
    except errors.GatedRepoError as error:
        hint = f"accept its terms at {page}, then log in: hf auth login, or set HF_TOKEN"
        raise SslrobError(f"'hf:{told}' is only for those who accepted its terms", hint=hint) from error
    except errors.RepositoryNotFoundError as error:
        hint = f"look at {page}; if it is private, log in: hf auth login, or set HF_TOKEN"
        raise SslrobError(f"no repository {place.repository!r} is on the hub, or it is private", hint=hint) from error
    except errors.RevisionNotFoundError as error:
        raise SslrobError(f"{place.repository!r} has no revision {place.revision!r}", hint=f"see {page}/commits/main") from error
    except errors.OfflineModeIsEnabled as error:
        raise RunFailed(f"'hf:{told}' is not in the cache, and HF_HUB_OFFLINE is set", hint="unset it") from error
    except errors.LocalEntryNotFoundError as error:
        raise RunFailed(f"cannot download 'hf:{told}': {_first_line(error.__cause__ or error)}", hint="check the network") from error
    except errors.EntryNotFoundError as error:
        raise SslrobError(f"{place.repository!r} has no file {place.file!r}", hint=f"see {page}/tree/{place.revision or 'main'}") from error
    except Exception as error:  # the library's own errors, and those of the HTTP library that it uses in this version
        raise RunFailed(
            f"cannot download 'hf:{told}': {_first_line(error)}", hint="check the network, and the room under HF_HOME"
        ) from error


@contextmanager
def _quiet_off_terminals() -> Iterator[None]:
    """No progress bars where nobody looks."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    quiet = not sys.stderr.isatty() and not are_progress_bars_disabled()
    if quiet:
        disable_progress_bars()
    try:
        yield
    finally:
        if quiet:
            enable_progress_bars()


@contextmanager
def _own_words() -> Iterator[None]:
    """Without the library's warnings of each attempt: what came of them is told once."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
