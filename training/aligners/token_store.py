"""Texts of a data set -> the token features of a frozen text encoder, computed once and kept beside the data."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from more_itertools import chunked
from torch import Tensor
from tqdm import tqdm

from training.data.tensor_shards import TensorShards
from vlm.config import TextConfig
from vlm.model.text_encoders import SentenceEncoder

AT_ONCE = 64  # texts, of like length
SHARD_SIZE = 32 * AT_ONCE  # texts; at most 126 MB of 40 tokens of 768 half-precision features


class TokenStore(TensorShards):
    """Token features by the text, in half precision, read from the shards as they are needed. A shard holds those of its
    texts one after the other [M, D], and which they are by their digests: texts themselves would be more than the header
    of a file of safetensors may have."""

    def __init__(self, folder: Path, config: TextConfig) -> None:
        self._places: dict[str, tuple[int, slice]] = {}  # shard and rows
        super().__init__(folder, "texts", json.dumps(asdict(config), sort_keys=True))

    def _read(self, metadata: dict[str, str]) -> None:
        start = 0
        for name, length in json.loads(metadata["lengths"]).items():
            self._places[name] = (len(self._shards), slice(start, start := start + length))

    def __contains__(self, text: str) -> bool:
        return name_of(text) in self._places

    def __getitem__(self, text: str) -> Tensor:
        """[L, D]"""
        shard, rows = self._places[name_of(text)]
        return self._shards[shard].get_slice("features")[rows]

    @torch.inference_mode()
    def add(self, texts: Iterable[str], encoder: SentenceEncoder) -> None:
        """Encode the texts that are not there yet. Runs that share the data take turns."""
        wanted = {text for text in texts if text not in self}
        if not wanted:
            return
        with self._writing():  # what another run may have written since is read
            new = sorted((text for text in wanted if text not in self), key=lambda text: (len(text), text))
            with tqdm(total=len(new), desc="texts") as progress:
                for shard in chunked(new, SHARD_SIZE):
                    self._encode(shard, encoder)
                    progress.update(len(shard))

    def _encode(self, shard: Sequence[str], encoder: SentenceEncoder) -> None:
        lengths: dict[str, int] = {}
        found = []
        for part in chunked(shard, AT_ONCE):
            features, mask = encoder.read(part)
            lengths |= zip(map(name_of, part), mask.sum(1).tolist(), strict=True)
            found.append(features[mask].half().cpu())
        self._write_shard({"features": torch.cat(found)}, {"lengths": json.dumps(lengths)})


def name_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
