"""Words with a picture in them, for llama.cpp: the fusion `fused` over the embeddings that a GGUF file stores."""

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf.quants import dequantize
from torch import Tensor

from vlm.config_reader import PartConfig
from vlm.engines.llama_library import LibraryProblem
from vlm.errors import UserError
from vlm.model.adapter import load_part
from vlm.model.fusion import Fusion, fusion_settings

NAME = "token_embd.weight"


class WordRows:
    """Ids [n] -> embeddings [n, Dl] in float32. The file stays on the disk; only the rows asked for are read."""

    def __init__(self, weights: Path) -> None:
        reader = gguf.GGUFReader(weights)
        kind = reader.get_field("general.architecture")
        if kind and str(kind.contents()).startswith("gemma"):
            # llama.cpp scales its words, and not embeddings that it is given
            raise LibraryProblem("llama.cpp cannot hold the fusion fused over Gemma, as torch can")
        stored = next((each for each in reader.tensors if each.name == NAME), None)
        if stored is None:
            raise UserError(f"{weights.name} holds no {NAME}. Set language.engine to torch.")
        self._data, self._form = stored.data, stored.tensor_type
        self.embedding_size = int(stored.shape[0])

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        return dequantize(self._data[ids], self._form).astype(np.float32)


class FusedWords:
    def __init__(self, words: WordRows, fusion: Fusion) -> None:
        self.words, self.fusion = words, fusion

    def behind(self, visual_tokens: Tensor) -> Callable[[np.ndarray], np.ndarray]:
        """A picture [K, Dl] -> what makes of ids [n] the embeddings [n, Dl] that are read behind it."""
        view = self.fusion.view(visual_tokens.detach().float().cpu()[None, None])

        @torch.inference_mode()
        def fuse(ids: np.ndarray) -> np.ndarray:
            embeds = torch.from_numpy(self.words(ids))[None]
            return self.fusion.fuse(embeds, torch.ones(1, len(ids), dtype=torch.long), view)[0].numpy()

        return fuse


def load_fused_words(config: PartConfig, weights: Path, file: Path | None) -> FusedWords:
    """`weights`: the GGUF file. `file`: the fusion's own weights, None where it has none."""
    words = WordRows(weights)
    fusion = fusion_settings(config).build(words.embedding_size, layers=0).eval()
    if file:
        load_part(fusion, file)
    return FusedWords(words, fusion)
