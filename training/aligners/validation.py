"""Validation pictures and all their texts -> losses and recall while an aligner trains."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from more_itertools import chunked
from torch import Tensor

from training.aligners.contrast import matryoshka_loss, shorten
from training.aligners.pairs import Captioned
from training.scores.retrieval import modality_gap, retrieval
from vlm.model.aligner import Aligner, EmbeddedPairs
from vlm.model.text_encoders import pad
from vlm.weights.tensor_files import save_tensors

CONTRASTED = 8192  # pictures at most whose loss is computed together: it needs a table of all with all
EMBEDDINGS = "validation.safetensors"  # in the run's folder, for the plots
# A picture's or text's id -> its features, or pixels or token ids where its encoder trains.
Side = Callable[[str], Tensor]


class Validation:
    """Pictures with all their texts, kept as the collator makes them: the loss of each with its first text, and recall."""

    def __init__(
        self, pictures: Sequence[Captioned], texts: Sequence[Sequence[str]], picture_of: Side, text_of: Side
    ) -> None:
        self.pictures, self.picture_of, self.text_of = pictures, picture_of, text_of
        self.texts = [text for own in texts for text in own]
        self.owners = [place for place, own in enumerate(texts) for _ in own]

    @torch.no_grad()
    def embed(self, aligner: Aligner, at_once: int = 64) -> EmbeddedPairs:
        was_training = aligner.training
        aligner.eval()
        pictures, texts = [], []
        for some in chunked(self.pictures, at_once):
            inputs = torch.stack([self.picture_of(each.picture) for each in some]).to(aligner.device)
            pictures.append(aligner.embed_picture_inputs(inputs))
        for each in chunked(self.texts, at_once):
            padded, mask = pad([self.text_of(text) for text in each])
            texts.append(aligner.embed_text_inputs(padded.to(aligner.device), mask.to(aligner.device)))
        aligner.train(was_training)
        none = torch.zeros(0, aligner.dims[0])  # of data whose pictures have names alone
        return EmbeddedPairs(torch.cat(pictures or [none]), torch.cat(texts or [none]))

    def keep(self, aligner: Aligner, file: Path) -> None:
        """Write the embeddings for the plots, with which text is of which picture."""
        pictures, texts = (each.float().cpu().contiguous() for each in self.embed(aligner))
        save_tensors({"pictures": pictures, "texts": texts, "owners": torch.tensor(self.owners)}, file)

    def scores(self, aligner: Aligner, loss_kind: str) -> dict[str, float]:
        pictures, texts = self.embed(aligner)
        found = loss_of_first(aligner, loss_kind, pictures, texts[first_places(self.owners)])
        pictures, texts = pictures.cpu(), texts.cpu()
        found |= {"modality_gap": modality_gap(pictures, texts)} | retrieval(pictures, texts, self.owners)
        for dim in aligner.dims[1:]:
            short = retrieval(shorten(pictures, dim), shorten(texts, dim), self.owners)
            found[f"t2i_recall@1_at_{dim}"] = short["t2i_recall@1"]
        return found


def first_places(owners: Sequence[int]) -> list[int]:
    """Of each picture, in their order, the place of its first text. `owners`: the picture of each text."""
    places: dict[int, int] = {}
    for place, owner in enumerate(owners):
        places.setdefault(owner, place)
    return [places[owner] for owner in range(len(places))]


def loss_of_first(aligner: Aligner, kind: str, pictures: Tensor, texts: Tensor) -> dict[str, float]:
    """The loss of pictures [P, E], each with its first text [P, E]: the mean over parts of `CONTRASTED`."""
    scale, bias = aligner.current_scale(), aligner.bias
    dims = aligner.dims[1:] or aligner.dims
    found = {"loss": 0.0, "clip_loss": 0.0, "matryoshka_loss": 0.0}
    for some, own in zip(pictures.split(CONTRASTED), texts.split(CONTRASTED), strict=True):
        same = torch.eye(len(some), dtype=torch.bool, device=some.device)
        loss = matryoshka_loss(kind, some, own, scale, bias, same, torch.ones_like(same[0]), dims)
        for name, value in zip(found, loss, strict=True):
            found[name] += value.item() * (len(some) / len(pictures))
    return found
