"""`UserError`, whose message is shown to people as it is, and what turns other errors into one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError


class UserError(ValueError):
    """A problem the person can mend. The message is plain, says what to do, and is shown as it is."""


def not_permitted(error: OSError) -> str:
    """What is wrong with a file that is there and may not be read."""
    return (
        f"{error.filename} may not be read by this account. Give it the permission, for example with chmod."
    )


def not_readable(file: Path, error: OSError) -> str:
    """What is wrong with a file that could not be opened."""
    if isinstance(error, FileNotFoundError):
        return f"There is no file {file}. Check its path."
    if isinstance(error, PermissionError):
        return not_permitted(error)
    if isinstance(error, IsADirectoryError):
        return f"{file} is a folder. Name a file in it."
    return f"{file} could not be read: {error.strerror or error}. Copy it again, or check its disk."


@contextmanager
def plain_load_errors(problem: str, remedy: str) -> Iterator[None]:
    """Within it whatever is wrong with the files of a model is a UserError; a GPU without memory is left as it is."""
    try:
        yield
    except (UserError, torch.OutOfMemoryError):
        raise
    except PermissionError as error:
        raise UserError(not_permitted(error)) from error
    except (SafetensorError, RuntimeError, OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:300].rstrip(".")
        raise UserError(f"{problem} ({reason}). {remedy}") from error
