"""Pictures of a data set -> their patch features, computed once and kept.

The encoder is frozen, so each distinct picture is encoded a single time. Shards of safetensors are written one by one
under temporary names: a killed run goes on after its last whole shard. The folder is named after the encoder's
configuration, so that features of another encoder are never read by mistake.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from more_itertools import chunked, peekable
from safetensors import SafetensorError, safe_open
from torch import Tensor
from tqdm import tqdm

from training.data.augmentation import NO_AUGMENTATION, AugmentationConfig, open_view, picture_id_of
from vlm.config import VisionConfig
from vlm.errors import UserError, not_permitted
from vlm.locks import in_turn
from vlm.model.embeddings import Precomputed, StoredEmbeddings, unnamed
from vlm.model.encoders import describe_features
from vlm.model.tags import Tagger
from vlm.weights.tensor_files import save_tensors
from vlm.whole_files import write_whole

SHARD_SIZE = 256  # pictures; 72 MB of 100 x 1416 half-precision features


class FeatureStore:
    """Patch features by the picture's id, read from the shards as they are needed."""

    def __init__(self, folder: Path, vision: VisionConfig) -> None:
        description = json.dumps(describe_features(vision), sort_keys=True)
        self.folder = folder / f"features-{hashlib.sha256(description.encode()).hexdigest()[:12]}"
        self.description = description
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "encoder.json").is_file():  # which the folder's name stands for
            write_whole(self.folder / "encoder.json", description)
        self._shards: list[safe_open] = []
        self._files: set[Path] = set()  # of the shards
        self._places: dict[str, tuple[int, int]] = {}
        self._open_new()

    def __contains__(self, picture: object) -> bool:
        return picture in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, picture: str) -> Tensor:
        """[N, Dv]"""
        shard, row = self._places[picture]
        return self._shards[shard].get_slice("patch_features")[row].float()

    def sample(self, pictures: Sequence[str], count: int = 1024) -> Tensor:
        """Features of about `count` of the pictures, [M, N, Dv], evenly chosen: enough for statistics."""
        return torch.stack([self[picture] for picture in pictures[:: max(1, len(pictures) // count)]])

    def add(
        self,
        pictures: Iterable[tuple[str, bytes]],
        encoder: Any,
        augmentation: AugmentationConfig = NO_AUGMENTATION,
        batch_size: int = 16,
        broken: set[str] | None = None,
    ) -> None:
        """Encode the (id, image bytes) that are not there yet. A picture may come any number of times, and so may the ids
        of its views (training/data/augmentation.py). One that cannot be read is refused, or its id is put into `broken`.
        Of embeddings in an encoder's place each picture's is kept, and none of its views."""
        if isinstance(encoder, Precomputed):
            if not encoder.known.pictures:
                raise UserError(unnamed(encoder.file))
            return self.take(encoder.known, {picture_id_of(name) for name, _ in pictures}, encoder.file)

        def pixels_of(picture: tuple[str, bytes]) -> Tensor | None:
            name, content = picture
            try:
                return encoder.preprocess(open_view(name, content, augmentation))
            except UserError:
                if broken is None:
                    raise
                broken.add(picture_id_of(name))
                return None

        waiting = peekable(self._new(pictures))
        if not waiting:  # nothing to wait for, while another run encodes other pictures
            return
        with self._writing():
            new = (each for each in waiting if each[0] not in self)
            while shard := list(islice(new, SHARD_SIZE)):
                self._encode(shard, pixels_of, encoder, batch_size)

    def _encode(
        self,
        shard: Sequence[tuple[str, bytes]],
        pixels_of: Callable[[tuple[str, bytes]], Tensor | None],
        encoder: Any,
        batch_size: int,
    ) -> None:
        names, encoded = [], []
        with ThreadPoolExecutor() as threads:  # the next pictures are decoded while these are encoded
            pixels = threads.map(pixels_of, shard)
            waiting_pixels = tqdm(pixels, total=len(shard), desc=f"features, shard {self._next_number()}")
            named = ((name, each) for (name, _), each in zip(shard, waiting_pixels, strict=True))
            for batch in chunked(((name, each) for name, each in named if each is not None), batch_size):
                names += [name for name, _ in batch]
                encoded.append(encoder(torch.stack([each for _, each in batch])).half().cpu())
        if names:
            self._write(names, torch.cat(encoded))

    def take(self, known: StoredEmbeddings, wanted: Collection[str], file: Path) -> None:
        """Keep the embeddings of the pictures in `wanted`, which were computed elsewhere. Raises UserError where some are
        missing."""
        places = {name: place for place, name in enumerate(known.pictures)}
        missing = sorted(set(wanted) - set(places))
        if missing:
            raise UserError(
                f"{file} has no embedding of {len(missing)} of the {len(wanted)} pictures, such as {missing[0]}. Name each "
                "by its picture's image_id in the parquet files, which is not the SHA-256 of your own file where the "
                "picture was stored anew (training/README.md, Other parts)."
            )
        with self._writing():
            for names in chunked(sorted(name for name in wanted if name not in self), SHARD_SIZE):
                halved = known.features[[places[name] for name in names]].half()
                if not halved.isfinite().all():
                    raise UserError(
                        f"{file} holds numbers beyond 65,504, the most that features may be. Scale them down."
                    )
                self._write(names, halved)

    def _new(self, pictures: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
        seen: set[str] = set()
        for name, content in pictures:
            if name not in self and name not in seen:
                seen.add(name)
                yield name, content

    def pooled(self, tagger: Tagger) -> dict[str, Tensor]:
        """What the tagger looks at of every picture, [Dc], on the tagger's device."""
        pooled: dict[str, Tensor] = {}
        for shard in self._shards:
            names = json.loads(shard.metadata()["pictures"])
            features = shard.get_tensor("patch_features").to(tagger.classifier.weight.device)
            pooled |= zip(names, tagger.pool(features.float()), strict=True)
        return pooled

    def _write(self, names: list[str], patch_features: Tensor) -> None:
        if not patch_features.isfinite().all():  # one such picture would spoil every weight
            raise UserError(
                "The encoder's features of a picture are not finite numbers. Its weights or the device are damaged."
            )
        file = self.folder / f"shard-{self._next_number():05d}.safetensors"
        tensors = {"patch_features": patch_features.half().cpu().contiguous()}
        metadata = {"pictures": json.dumps(names), "encoder": self.description, "dtype": "float16"}
        save_tensors(tensors, file, metadata)
        self._open(file)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Runs that share the data take turns, and each goes on from what the one before has written."""
        with in_turn(self.folder):
            self._open_new()
            yield

    def _open_new(self) -> None:
        for file in sorted(set(self.folder.glob("shard-*.safetensors")) - self._files):
            self._open(file)

    def _next_number(self) -> int:
        """Behind the last shard, of which one before may have been removed."""
        numbers = (file.stem.removeprefix("shard-") for file in self._files)
        return max((int(number) for number in numbers if number.isdecimal()), default=-1) + 1

    def _open(self, file: Path) -> None:
        try:
            with file.open("rb"):  # safetensors does not name a file that may not be read
                shard = safe_open(file, framework="pt")
            metadata = shard.metadata()
            names = json.loads(metadata["pictures"])
        except PermissionError as error:
            raise UserError(not_permitted(error)) from error
        except (SafetensorError, KeyError, TypeError) as error:
            raise UserError(
                f"{file} holds no features ({error!r}). Remove it; they are computed again."
            ) from error
        encoder = metadata.get("encoder", self.description)
        if encoder != self.description:
            raise UserError(
                f"The features in {file} were made with {encoder}, and the preset has {self.description}. Remove them, "
                "or use the preset they were made for."
            )
        for row, name in enumerate(names):
            self._places[name] = (len(self._shards), row)
        self._shards.append(shard)
        self._files.add(file)


class Averages:
    """The mean of the features of a picture or text as its only one [1, D], which is all that a head with mean pooling sees
    of it: read once and kept in memory."""

    def __init__(self, features_of: Callable[[str], Tensor]) -> None:
        self.features_of = features_of
        self.known: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.known:
            self.known[name] = self.features_of(name).float().mean(0, keepdim=True)
        return self.known[name]
