"""Pooled features -> the names of what a picture shows, as text for the prompt.

Two linear classifiers look at the mean of the encoder's last map: the encoder's own, which knows the 1,000 classes of
ImageNet, and a head that training fits to the nouns of its pictures (training/adapters/tags.py). Their best names enter
the prompt with their certainty ("object tags", as in Oscar, arXiv:2004.06165, and Tag2Text, arXiv:2303.05657), so that
the language model need not learn every object of the world anew from a few thousand pictures.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from vlm.weights.tensor_files import load_tensors, save_tensors, to_store

LEAST = 0.03  # probability of a name that is worth telling
ENCODER_SHARE = 0.3  # weight of the encoder's own classifier beside the head


def pooled_for(classifier: nn.Linear, patch_features: Tensor) -> Tensor:
    """Features of pictures [B, N, Dv], whose first Dc channels the encoder's own classifier knows -> [B, Dc]"""
    return patch_features[..., : classifier.in_features].mean(1)


class Tagger:
    """`classifier`: pooled feature [Dc] -> scores of `classes`. At most `count` names are given."""

    def __init__(self, classifier: nn.Linear, classes: Sequence[str], count: int) -> None:
        self.classifier, self.classes, self.count = classifier, list(classes), count
        self.set_head(None, [])

    def set_head(self, head: nn.Linear | None, nouns: Sequence[str]) -> None:
        """Take a head [Dc] -> scores of `nouns`. A noun that is a class of the encoder as well is one name."""
        self.head = head and head.to(self.classifier.weight).requires_grad_(False)
        self.nouns = list(nouns)
        self.names = list({name.lower(): name for name in [*self.classes, *nouns]}.values())
        places = {name.lower(): place for place, name in enumerate(self.names)}
        self.class_places = torch.tensor([places[name.lower()] for name in self.classes])
        self.noun_places = torch.tensor([places[noun.lower()] for noun in nouns], dtype=torch.long)

    def with_head(self, head: nn.Linear, nouns: Sequence[str]) -> "Tagger":
        """Another tagger on the same encoder."""
        other = Tagger(self.classifier, self.classes, self.count)
        other.set_head(head, nouns)
        return other

    def pool(self, patch_features: Tensor) -> Tensor:
        """Features of pictures [B, N, Dv], whose first Dc channels the classifiers know -> [B, Dc]"""
        return pooled_for(self.classifier, patch_features).to(self.classifier.weight)

    @torch.inference_mode()
    def chances(self, pooled: Tensor) -> Tensor:
        """[B, Dc] -> probabilities of `names`, [B, len(names)]"""
        chances = pooled.new_zeros(len(pooled), len(self.names))
        share = ENCODER_SHARE if self.head else 1.0
        known = share * self.classifier(pooled).softmax(-1)
        chances.index_add_(1, self.class_places.to(pooled.device), known)
        if self.head:
            learned = (1 - share) * self.head(pooled).softmax(-1)
            chances.index_add_(1, self.noun_places.to(pooled.device), learned)
        return chances

    def tags(self, pooled: Tensor) -> list[str]:
        """Pooled features [B, Dc] -> "tabby 62%, sofa 11%" for each picture."""
        best, places = self.chances(pooled).float().topk(self.count)
        return [
            ", ".join(
                f"{self.names[place]} {round(100 * chance)}%"
                for rank, (chance, place) in enumerate(zip(row, own, strict=True))
                if chance >= LEAST or rank == 0
            )
            for row, own in zip(best.tolist(), places.tolist(), strict=True)
        ]

    def save(self, file: Path) -> None:
        """The head and its nouns, where there is one."""
        if self.head:
            tensors = to_store(self.head.state_dict(), torch.float16)
            save_tensors(tensors, file, {"nouns": json.dumps(self.nouns)})

    def load(self, file: Path) -> None:
        """Raises ValueError where the file is no head of this encoder."""
        with safe_open(file, framework="pt") as stored:
            nouns = json.loads((stored.metadata() or {}).get("nouns", "null"))
        if not isinstance(nouns, list) or not all(isinstance(noun, str) for noun in nouns):
            raise ValueError(f"{file.name} does not name its nouns")
        head = nn.Linear(self.classifier.in_features, len(nouns))
        head.load_state_dict(load_tensors(file, head.state_dict()))
        self.set_head(head, nouns)
