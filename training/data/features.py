"""Pictures of a data set -> their patch features, computed once and kept.

The encoder is frozen, so each distinct picture is encoded a single time.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from more_itertools import chunked, peekable
from torch import Tensor
from tqdm import tqdm

from training.data.augmentation import NO_AUGMENTATION, AugmentationConfig, open_view, picture_id_of
from training.data.tensor_shards import TensorShards
from vlm.config import VisionConfig
from vlm.errors import UserError
from vlm.model.embeddings import Precomputed, StoredEmbeddings, unnamed
from vlm.model.encoders import describe_features
from vlm.model.tags import Tagger

SHARD_SIZE = 256  # pictures; 72 MB of 100 x 1416 half-precision features


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
        tensors = {"patch_features": patch_features.half().cpu().contiguous()}
        self._write_shard(tensors, {"pictures": json.dumps(names)})


def averages_of(features_of: Callable[[str], Tensor]) -> Callable[[str], Tensor]:
    """The mean of the features of a picture or text as its only one [1, D], which is all that a head with mean pooling sees
    of it: read once and kept in memory."""

    @cache
    def average_of(name: str) -> Tensor:
        return features_of(name).float().mean(0, keepdim=True)

    return average_of
