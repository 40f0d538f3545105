"""python -m training.scores.alignment --aligner embedded: an aligner -> how well it searches and names held-out pictures.

Pictures are the data's validation split, encoded as the app does it. Beside each score stand chance and the same
measured with fresh heads (random projections); beside the naming of pictures, the encoder's own classifier too.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from more_itertools import chunked
from torch import Tensor

from training.aligners.contrast import shorten
from training.aligners.pairs import Captioned, damaged, names_of, read_pairs
from training.data import pictures_of
from training.data.features import FeatureStore
from training.scores.metrics import normalise, share
from training.scores.retrieval import chance, mean_average_precision, modality_gap, recall_lost, retrieval
from vlm.chat.search import names_vectors
from vlm.inputs.images import open_image
from vlm.model.aligner import Aligner
from vlm.model.alignment import build_aligner, find_aligner, load_aligner_model
from vlm.model.tags import pooled_for
from vlm.model.text_encoders import TokenFeatures
from vlm.terminal import command

CAPTIONED, NAMED = "flickr8k", "caltech101"
COMMAND = "python -m training.scores.alignment --aligner {name}"


class Seen(NamedTuple):
    """What the frozen encoders make of pictures and texts, so that several heads can be compared."""

    pictures: Tensor  # patch features [P, N, Dv]
    texts: list[TokenFeatures]

    def embed(self, aligner: Aligner) -> tuple[Tensor, Tensor]:
        """-> [P, E], [T, E] of unit length"""
        texts = [aligner.embed_text_inputs(*some) for some in self.texts]
        return self.embed_pictures(aligner), torch.cat(texts).cpu()

    def embed_pictures(self, aligner: Aligner) -> Tensor:
        """-> [P, E] of unit length"""
        some = [aligner.embed_picture_inputs(each.to(aligner.device)) for each in self.pictures.split(32)]
        return torch.cat(some).cpu()


@torch.no_grad()
def see(
    aligner: Aligner,
    data: Path,
    pictures: Sequence[Captioned],
    texts: Sequence[str],
    split: str = "validation",
) -> Seen:
    """A frozen encoder's features of the split's pictures are computed once and kept beside the data."""
    names = [each.picture for each in pictures]
    contents, wanted = pictures_of(data, split, {each.source for each in pictures}, Counter()), set(names)
    if aligner.encoders_trained:
        by_name = {name: content for name, content in contents if name in wanted}
        features = features_by(aligner, [by_name[name] for name in names])
    else:
        store = FeatureStore(data, aligner.preset.vision)
        store.fill(contents, wanted, aligner.vision)
        features = torch.stack([store[name] for name in names]).float()
    return Seen(features, [aligner.text.read(some) for some in chunked(texts, 64)])


def features_by(aligner: Aligner, contents: Sequence[bytes]) -> Tensor:
    """Image bytes -> patch features [P, N, Dv] of an encoder that was trained, a few pictures at a time, on the CPU."""
    images = map(open_image, contents)
    return torch.cat([aligner.vision.see(some).cpu() for some in chunked(images, 16)])


@torch.no_grad()
def report(aligner: Aligner, data: Path, name: str = "embedded") -> dict[str, Any]:
    """Every score of the aligner's metrics.json. A source that the data lacks is left out."""
    known = read_pairs(data, [CAPTIONED, NAMED], 0.0)
    held_out = {each.picture for each in known.held_out}
    contents = pictures_of(data, "validation", {CAPTIONED, NAMED}, Counter())
    known = known.without(damaged(each for each in contents if each[0] in held_out))
    torch.manual_seed(0)
    fresh = untrained(aligner)
    scores: dict[str, Any] = {"command": COMMAND.format(name=name)}
    if captioned := [each for each in known.held_out if each.source == CAPTIONED]:
        scores |= search(aligner, fresh, data, captioned)
    if named := [each for each in known.held_out if each.source == NAMED]:
        names = sorted(names_of([*known.train, *named], NAMED))
        scores |= naming(aligner, fresh, data, named, names)
    return scores


def untrained(aligner: Aligner) -> Aligner:
    """The same encoders with fresh heads, which normalise as the trained ones do: random projections."""
    fresh = build_aligner(aligner.preset, str(aligner.device))
    for side in ("picture_head", "text_head"):
        getattr(fresh, side).normalise.load_state_dict(getattr(aligner, side).normalise.state_dict())
    return fresh.eval()


def search(aligner: Aligner, fresh: Aligner, data: Path, pictures: Sequence[Captioned]) -> dict[str, Any]:
    """Captions find their pictures among all, and pictures their captions."""
    texts = [text for each in pictures for text in each.captions]
    owners = [place for place, each in enumerate(pictures) for _ in each.captions]
    seen = see(aligner, data, pictures, texts)
    of_pictures, of_texts = seen.embed(aligner)
    random_pictures, random_texts = seen.embed(fresh)
    by_dim = {
        str(dim): retrieval(shorten(of_pictures, dim), shorten(of_texts, dim), owners) for dim in aligner.dims
    }
    return {
        f"{CAPTIONED}_search": {
            "pictures": len(pictures),
            "texts": len(texts),
            "by_dim": by_dim,
            "lost_by_cutting": {
                str(dim): recall_lost(
                    of_texts @ of_pictures.T, shorten(of_texts, dim) @ shorten(of_pictures, dim).T, owners
                )
                for dim in aligner.dims[1:]
            },
            "random_projection": retrieval(random_pictures, random_texts, owners),
            "chance": dict(chance(len(pictures), len(texts) // len(pictures))),
            "modality_gap": modality_gap(of_pictures, of_texts),
        }
    }


def naming(
    aligner: Aligner,
    fresh: Aligner,
    data: Path,
    pictures: Sequence[Captioned],
    names: Sequence[str],
) -> dict[str, Any]:
    """Zero-shot: each picture is called by the name whose templates, averaged, are most like it, as `classify` does it."""
    right = torch.tensor([[each.name.lower() == name for name in names] for each in pictures])
    seen = see(aligner, data, pictures, [])
    judges = {"aligner": aligner, "random_projection": fresh}
    found = {
        name: seen.embed_pictures(judge) @ names_vectors(judge, names).T for name, judge in judges.items()
    }
    if hasattr(aligner.vision, "classifier"):
        found["own_classifier"] = classified(aligner, seen.pictures, names)
    scores: dict[str, Any] = {"pictures": len(pictures), "names": len(names), "chance": 1 / len(names)}
    for judge, table in found.items():
        hits = right.gather(1, table.argmax(1, keepdim=True)).flatten()
        scores[judge] = share(hits.tolist())._asdict() | {
            "map_by_name": mean_average_precision(table.T, right.T)
        }
    return {f"{NAMED}_naming": scores}


def classified(aligner: Aligner, patch_features: Tensor, names: Sequence[str]) -> Tensor:
    """The encoder's own probability of each name [P, names]: of its classes that are called so; 0 where none is."""
    classifier = aligner.vision.classifier
    pooled = pooled_for(classifier, patch_features).to(classifier.weight)
    chances = classifier(pooled).softmax(-1).float().cpu()
    table = torch.zeros(len(patch_features), len(names))
    for place, name in enumerate(names):
        own = [
            i
            for i, known in enumerate(aligner.vision.classes)
            if f" {normalise(name)} " in f" {normalise(known)} "  # of whole words: a cardigan is no car
        ]
        if own:
            table[:, place] = chances[:, own].sum(1)
    return table


@command("alignment")
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.scores.alignment", description=__doc__)
    parser.add_argument("--aligner", default="embedded", help="a shipped aligner's name or a folder")
    parser.add_argument("--data", type=Path, default=Path("data/embedded"), help="folder of parquet files")
    arguments = parser.parse_args()
    folder = find_aligner(arguments.aligner)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    scores = report(load_aligner_model(str(folder), device), arguments.data, arguments.aligner)
    print(json.dumps(scores, indent=1))


if __name__ == "__main__":
    main()
