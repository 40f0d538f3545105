"""A repository's name on the Hugging Face hub -> a local folder of its files, from the hub or from its cache.

`user/name@revision` pins a commit, a tag or a branch. Where the hub cannot be reached, a whole copy from before is used.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import hf_hub_url, snapshot_download
from huggingface_hub.errors import HFValidationError, HTTPError
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from vlm.errors import UserError


def is_hub_name(name: str) -> bool:
    """Whether it is written like user/name or user/name@revision."""
    return bool(re.fullmatch(r"\w[\w.-]*/\w[\w.-]*(@\w[\w.-]*)?", name))


def split_revision(name: str) -> tuple[str, str | None]:
    """user/name@revision -> user/name and the revision, None where none is pinned."""
    if not is_hub_name(name):
        return name, None
    repository, _, revision = name.partition("@")
    return repository, revision or None


def fetch(name: str, patterns: Sequence[str], unknown: str) -> Path:
    """The repository's files of these patterns, and no others.

    Raises UserError that begins with `unknown`, which says what else the name is not."""
    remedy = (
        "Check the name and the network, log in with `hf auth login` where it is private, or copy it here and give "
        "its folder."
    )
    with plain_hub_errors(f"{unknown}, and could not be fetched from the hub", remedy):
        repository, revision = split_revision(name)
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(patterns)))


def fetch_range(name: str, file: str, start: int, size: int) -> bytes:
    """`size` bytes of the repository's file from `start` on, or fewer where it ends before."""
    headers = build_hf_headers() | {"Range": f"bytes={start}-{start + size - 1}"}
    with (
        plain_hub_errors(f"{name} could not be fetched from the hub", "Check the network."),
        get_session().stream("GET", hf_hub_url(name, file), headers=headers, timeout=30) as response,
    ):
        hf_raise_for_status(response)
        if response.status_code != 206:  # it would send the whole file
            raise OSError("it does not give a part of a file")
        return response.read()


@contextmanager
def plain_hub_errors(problem: str, remedy: str) -> Iterator[None]:
    """Within it whatever the hub refuses, and a hub that cannot be reached, is a UserError."""
    refusals = HFValidationError, HTTPError, OSError  # HTTPError: of the hub's HTTP client, whichever it is
    try:
        yield
    except refusals as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise UserError(f"{problem} ({reason}). {remedy}") from error


def hub_name(folder: Path) -> str | None:
    """user/name of a folder in the hub's cache (models--user--name/snapshots/<commit>); None for any other."""
    kept = folder.parent.parent.name
    if folder.parent.name != "snapshots" or not kept.startswith("models--"):
        return None
    return kept.removeprefix("models--").replace("--", "/")
