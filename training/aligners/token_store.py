"""Texts of a data set -> the token features of a frozen text encoder, computed once and kept beside the data."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from more_itertools import chunked
from safetensors import safe_open
from torch import Tensor
from tqdm import tqdm

from vlm.config import TextConfig
from vlm.errors import plain_load_errors
from vlm.locks import in_turn
from vlm.model.text_encoders import SentenceEncoder
from vlm.weights.tensor_files import save_tensors

AT_ONCE = 64  # texts, of like length


class TokenStore:
    """Token features by the text, in half precision: those of all texts one after the other [M, D]."""

    def __init__(self, folder: Path, config: TextConfig) -> None:
        identity = hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode()).hexdigest()
        self.file = folder / f"texts-{identity[:12]}.safetensors"
        self.places: dict[str, slice] = {}
        self.features = torch.empty(0, 0)
        self._read()

    def _read(self) -> None:
        if self.file.is_file():
            with (
                plain_load_errors(
                    f"{self.file} holds no features of texts", "Remove it; they are computed again."
                ),
                self.file.open("rb"),  # safetensors does not name a file that may not be read
                safe_open(self.file, framework="pt") as stored,
            ):
                lengths = json.loads((stored.metadata() or {})["lengths"])
                self._lay_out(lengths, stored.get_tensor("features"))

    def __contains__(self, text: object) -> bool:
        return text in self.places

    def __getitem__(self, text: str) -> Tensor:
        """[L, D]"""
        return self.features[self.places[text]]

    def _lay_out(self, lengths: dict[str, int], features: Tensor) -> None:
        start = 0
        for text, length in lengths.items():
            self.places[text] = slice(start, start := start + length)
        self.features = features

    @torch.inference_mode()
    def add(self, texts: Iterable[str], encoder: SentenceEncoder) -> None:
        """Encode the texts that are not there yet, and write the file anew. Runs that share the data take turns."""
        wanted = {text for text in texts if text not in self}
        if wanted:
            with in_turn(self.file):
                self._read()  # which another run may have written since
                if new := [text for text in wanted if text not in self]:
                    self._encode(sorted(new, key=lambda text: (len(text), text)), encoder)

    def _encode(self, new: Sequence[str], encoder: SentenceEncoder) -> None:
        lengths = {text: place.stop - place.start for text, place in self.places.items()}
        found = [self.features] if self.places else []
        for part in tqdm(list(chunked(new, AT_ONCE)), desc="texts"):
            features, mask = encoder.read(part)
            lengths |= zip(part, mask.sum(1).tolist(), strict=True)
            found.append(features[mask].half().cpu())
        self._lay_out(lengths, torch.cat(found))
        save_tensors({"features": self.features}, self.file, {"lengths": json.dumps(lengths)})
