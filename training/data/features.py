"""Pictures of a data set -> their patch features, computed once and kept.

The encoder is frozen, so each distinct picture is encoded a single time.
"""

import json
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cache
from multiprocessing import get_all_start_methods
from pathlib import Path
from typing import Any, NamedTuple

import torch
from more_itertools import chunked, ichunked, peekable
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from training.data.augmentation import NO_AUGMENTATION, AugmentationConfig, open_view, picture_id_of
from training.data.tensor_shards import TensorShards
from vlm.config import VisionConfig
from vlm.errors import UserError
from vlm.machine import usable_cores
from vlm.model.embeddings import Precomputed, StoredEmbeddings, unnamed
from vlm.model.encoders import describe_features
from vlm.model.tags import Tagger

SHARD_SIZE = 256  # pictures; 72 MB of 100 x 1416 half-precision features
MOST_WORKERS = 16
SHARED = Path("/dev/shm")


class FeatureStore(TensorShards):
    """Patch features by the picture's id, read from the shards as they are needed."""

    def __init__(self, folder: Path, vision: VisionConfig) -> None:
        self._places: dict[str, tuple[int, int]] = {}  # shard and row
        super().__init__(folder, "features", json.dumps(describe_features(vision), sort_keys=True))

    def _read(self, metadata: dict[str, str]) -> None:
        for row, name in enumerate(json.loads(metadata["pictures"])):
            self._places[name] = (len(self._shards), row)

    def __contains__(self, picture: object) -> bool:
        return picture in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, picture: str) -> Tensor:
        """[N, Dv], in half precision as kept: workers send it through shared memory, of which containers have little."""
        shard, row = self._places[picture]
        return self._shards[shard].get_slice("patch_features")[row]

    def sample(self, pictures: Sequence[str], count: int = 1024) -> Tensor:
        """Features of about `count` of the pictures, [M, N, Dv] in float32, evenly chosen: enough for statistics."""
        return torch.stack([self[picture].float() for picture in pictures[:: max(1, len(pictures) // count)]])

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

        waiting = peekable(self._new(pictures))
        if not waiting:  # nothing to wait for, while another run encodes other pictures
            return
        with self._writing():
            new = (each for each in waiting if each[0] not in self)
            batches = _decoded(new, encoder, augmentation, min(batch_size, SHARD_SIZE))
            for shard in ichunked(batches, max(1, SHARD_SIZE // batch_size)):
                self._encode(shard, encoder, broken)

    def fill(self, pictures: Iterable[tuple[str, bytes]], wanted: Collection[str], encoder: Any) -> None:
        """Encode those of `wanted` that are not there yet. Where all are, the (id, image bytes) are not read."""
        if missing := {name for name in wanted if name not in self}:
            self.add((each for each in pictures if each[0] in missing), encoder)

    def _encode(self, shard: Iterable["_Batch"], encoder: Any, broken: set[str] | None) -> None:
        names: list[str] = []
        encoded = []
        for batch in shard:
            for name, fault in batch.faults:
                if broken is None:
                    raise fault
                broken.add(picture_id_of(name))
            if batch.names:
                names += batch.names
                encoded.append(encoder(batch.pixels).half().cpu())
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
        tensors = {"patch_features": patch_features.half().cpu().contiguous()}
        self._write_shard(tensors, {"pictures": json.dumps(names)})


class _Batch(NamedTuple):
    """Pictures that were read, with their pixels [B, 3, S, S], and those that could not be, with what is wrong."""

    names: list[str]
    pixels: Tensor
    faults: list[tuple[str, UserError]]


class _Pixels(Dataset):
    """(id, image bytes) -> the id, and what the encoder takes of the picture or view, or what is wrong with it: an error
    that a worker raises comes back with the worker's traceback in its message."""

    def __init__(self, preprocess: Callable[[Image.Image], Tensor], augmentation: AugmentationConfig) -> None:
        self.preprocess, self.augmentation = preprocess, augmentation

    def __getitem__(self, picture: tuple[str, bytes]) -> tuple[str, Tensor | UserError]:
        name, content = picture
        try:
            return name, self.preprocess(open_view(name, content, self.augmentation))
        except UserError as fault:
            return name, fault


def _together(pictures: Sequence[tuple[str, Tensor | UserError]]) -> _Batch:
    read = [(name, pixels) for name, pixels in pictures if isinstance(pixels, Tensor)]
    pixels = torch.stack([each for _, each in read]) if read else torch.empty(0)
    faults = [(name, fault) for name, fault in pictures if isinstance(fault, UserError)]
    return _Batch([name for name, _ in read], pixels, faults)


def _decoded(
    pictures: Iterable[tuple[str, bytes]], encoder: Any, augmentation: AugmentationConfig, batch_size: int
) -> Iterator[_Batch]:
    """(id, image bytes) -> batches in the same order. They are drawn as they are needed, a few batches ahead of the encoder
    where workers decode them."""
    workers = workers_for(encoder, batch_size)
    batches = DataLoader(
        _Pixels(encoder.preprocess, augmentation),
        batch_sampler=chunked(pictures, batch_size),  # what is drawn of it is sent to the workers
        num_workers=workers,
        collate_fn=_together,
        multiprocessing_context="fork" if workers else None,
        generator=torch.Generator(),  # a run that goes on encodes nothing: training's random numbers stay the same
    )
    with tqdm(desc="features", unit=" pictures") as progress:
        for batch in batches:
            yield batch
            progress.update(len(batch.names) + len(batch.faults))


def workers_for(encoder: Any, batch_size: int) -> int:
    """How many processes decode pictures for the encoder: a GPU would wait for one alone, and a CPU is busy encoding. Two
    batches of each wait in shared memory, of which a container may have little."""
    is_on_gpu = any(each.is_cuda for each in encoder.parameters())
    if not is_on_gpu or "fork" not in get_all_start_methods() or not SHARED.is_dir():
        return 0
    waiting = 2 * batch_size * encoder.preprocess(Image.new("RGB", (1, 1))).nbytes
    return min(MOST_WORKERS, usable_cores() - 1, shutil.disk_usage(SHARED).free // waiting)


def averages_of(features_of: Callable[[str], Tensor]) -> Callable[[str], Tensor]:
    """The mean of the features of a picture or text as its only one [1, D], which is all that a head with mean pooling sees
    of it: read once and kept in memory."""

    @cache
    def average_of(name: str) -> Tensor:
        return features_of(name).float().mean(0, keepdim=True)

    return average_of
