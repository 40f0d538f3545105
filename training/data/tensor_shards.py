"""Features that are computed once and kept: numbered files of tensors in one folder.

Shards of safetensors are written one by one under temporary names: a killed run goes on after its last whole shard. The
folder is named after the encoder's configuration, so that features of another encoder are never read by mistake.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from vlm.errors import UserError, not_permitted
from vlm.locks import in_turn
from vlm.weights.tensor_files import save_tensors
from vlm.whole_files import write_whole


class TensorShards(ABC):
    """The shards of a folder, opened and not read. `what` are they features of, for messages."""

    def __init__(self, data: Path, what: str, description: str) -> None:
        self.folder = data / f"{what}-{hashlib.sha256(description.encode()).hexdigest()[:12]}"
        self.what, self.description = what, description
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "encoder.json").is_file():  # which the folder's name stands for
            write_whole(self.folder / "encoder.json", description)
        self._shards: list[safe_open] = []
        self._files: list[Path] = []  # of the shards
        self._open_new()

    def __getstate__(self) -> dict[str, Any]:
        """For a worker that is not forked: it opens the shards itself."""
        return self.__dict__ | {"_shards": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._shards = [safe_open(file, framework="pt") for file in self._files]

    @abstractmethod
    def _read(self, metadata: dict[str, str]) -> None:
        """Remember what is where in the shard that is opened next, of the number len(self._shards). Raises KeyError where
        the metadata do not say it."""

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Runs that share the data take turns, and each goes on from what the one before has written."""
        with in_turn(self.folder):
            self._open_new()
            yield

    def _write_shard(self, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        file = self.folder / f"shard-{self._next_number():05d}.safetensors"
        save_tensors(tensors, file, metadata | {"encoder": self.description, "dtype": "float16"})
        self._open(file)

    def _open_new(self) -> None:
        for file in sorted(set(self.folder.glob("shard-*.safetensors")) - set(self._files)):
            self._open(file)

    def _next_number(self) -> int:
        """Behind the last shard, of which one before may have been removed."""
        numbers = (file.stem.removeprefix("shard-") for file in self._files)
        return max((int(number) for number in numbers if number.isdecimal()), default=-1) + 1

    def _open(self, file: Path) -> None:
        try:
            with file.open("rb"):  # safetensors does not name a file that may not be read
                shard = safe_open(file, framework="pt")
            metadata = shard.metadata() or {}
            encoder = metadata.get("encoder", self.description)
            if encoder != self.description:
                raise UserError(
                    f"The features in {file} were made with {encoder}, and the preset has {self.description}. Remove them, "
                    "or use the preset they were made for."
                )
            self._read(metadata)
        except PermissionError as error:
            raise UserError(not_permitted(error)) from error
        except (SafetensorError, KeyError, TypeError) as error:
            raise UserError(
                f"{file} holds no {self.what} ({error!r}). Remove it; they are computed again."
            ) from error
        self._shards.append(shard)
        self._files.append(file)
