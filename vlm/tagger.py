"""Pooled features -> the names of what a picture shows, as text for the prompt.

Two linear classifiers look at the encoder's pooled feature: the encoder's own, which knows the 1,000 classes of
ImageNet, and a head that training fits to the nouns of its pictures (training/tags.py). Their best names enter the
prompt ("object tags", as in Oscar, arXiv:2004.06165, and Tag2Text, arXiv:2303.05657): a language model with a few
thousand training pictures would otherwise have to learn every object of the world anew.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

ENCODER_SHARE = 0.3  # weight of the encoder's own classifier beside the head


class Tagger(nn.Module):
    """`classifier` is the encoder's own, [Dc] -> [len(classes)]; `count` names are given for a picture. Pooled features may
    have more channels than the Dc that the classifiers look at, the first."""

    def __init__(self, classifier: nn.Linear, classes: Sequence[str], count: int) -> None:
        super().__init__()
        self.classifier, self.classes, self.count = classifier, list(classes), count
        self.set_head(None, [])

    def set_head(self, head: nn.Linear | None, nouns: Sequence[str]) -> None:
        """Take a head [Dc] -> [len(nouns)]. A noun that is a class of the encoder as well is one name."""
        self.head = head and head.to(self.classifier.weight).requires_grad_(False)
        self.nouns = list(nouns)
        self.names = list({name.lower(): name for name in [*self.classes, *nouns]}.values())
        places = {name.lower(): place for place, name in enumerate(self.names)}
        self.class_places = torch.tensor([places[name.lower()] for name in self.classes], dtype=torch.long)
        self.noun_places = torch.tensor([places[noun.lower()] for noun in nouns], dtype=torch.long)

    @torch.inference_mode()
    def forward(self, pooled: Tensor) -> Tensor:
        """Pooled features [B, Dv] -> probabilities of `names`, [B, len(names)]."""
        pooled = pooled[:, : self.classifier.in_features].to(self.classifier.weight)
        share = ENCODER_SHARE if self.head else 1.0
        mixed = pooled.new_zeros(len(pooled), len(self.names))
        mixed.index_add_(1, self.class_places.to(mixed.device), share * self.classifier(pooled).softmax(-1))
        if self.head:
            seen = self.head(pooled).softmax(-1)
            mixed.index_add_(1, self.noun_places.to(mixed.device), (1 - share) * seen)
        return mixed

    def tags(self, pooled: Tensor) -> list[str]:
        """[B, Dv] -> "espresso 9, cup 0, eggnog 0": the best names with their probability in tenths."""
        top = self(pooled).topk(self.count)
        rows = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        return [
            ", ".join(f"{self.names[place]} {int(10 * value)}" for place, value in zip(*row, strict=True))
            for row in rows
        ]

    def save(self, file: Path) -> None:
        """Half precision, without a pickle; a tagger without a head is saved as such."""
        state = self.head.state_dict() if self.head else {}
        tensors = {name: tensor.half().contiguous() for name, tensor in state.items()}
        save_file(tensors, file, metadata={"nouns": json.dumps(self.nouns, ensure_ascii=False)})

    def load(self, file: Path) -> None:
        with safe_open(file, framework="pt") as stored:
            nouns = json.loads(stored.metadata()["nouns"])
            head = nn.Linear(self.classifier.in_features, len(nouns)) if nouns else None
            if head:
                head.load_state_dict({name: stored.get_tensor(name) for name in stored.keys()})  # noqa: SIM118
        self.set_head(head, nouns)
