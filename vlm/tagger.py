"""Patch features -> the names of what a picture shows, and where, as text for the prompt.

Two linear classifiers look at the encoder's pooled feature: the encoder's own, which knows the 1,000 classes of
ImageNet, and a head that training fits to the nouns of its pictures (training/tags.py). Their best names enter the
prompt ("object tags", as in Oscar, arXiv:2004.06165, and Tag2Text, arXiv:2303.05657): a language model with a few
thousand training pictures would otherwise have to learn every object of the world anew.

The things that a question names are looked up as well, as InstructBLIP (arXiv:2305.06500) looks at a picture with the
question in mind: how likely each is, and where. Linear classifiers of an average see in a cell its share of what they
see in the whole (class activation maps, arXiv:1512.04150).
"""

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vlm.words import content_words

ENCODER_SHARE = 0.3  # weight of the encoder's own classifier beside the head
SIDES = ("left", "right"), ("above", "below")
OFF_CENTRE = 0.15  # of the half width: nearer to the middle, a thing is on no side
# of the picture, not of what is in it
QUESTION_WORDS = {"drawing", "image", "photo", "photograph", "picture"}


class Tagger(nn.Module):
    """`classifier` is the encoder's own, [Dc] -> [len(classes)]; `count` names are given for a picture, and those in a
    question if `asks`. Features may have more channels than the Dc that the classifiers look at, the first."""

    def __init__(self, classifier: nn.Linear, classes: Sequence[str], count: int, asks: bool = False) -> None:
        super().__init__()
        self.classifier, self.classes, self.count, self.asks = classifier, list(classes), count, asks
        self.set_head(None, [])

    def set_head(self, head: nn.Linear | None, nouns: Sequence[str]) -> None:
        """Take a head [Dc] -> [len(nouns)]. A noun that is a class of the encoder as well is one name."""
        self.head = head and head.to(self.classifier.weight).requires_grad_(False)
        self.nouns = list(nouns)
        self.names = list({name.lower(): name for name in [*self.classes, *nouns]}.values())
        places = {name.lower(): place for place, name in enumerate(self.names)}
        self.class_places = torch.tensor([places[name.lower()] for name in self.classes], dtype=torch.long)
        self.noun_places = torch.tensor([places[noun.lower()] for noun in nouns], dtype=torch.long)
        # "duck" and "ducks" are asked about as one
        self.by_words: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for place, name in enumerate(self.names if self.asks else ()):
            self.by_words[tuple(content_words(name))].append(place)
        self.longest = max(map(len, self.by_words), default=0)  # words

    def with_head(self, head: nn.Linear | None, nouns: Sequence[str]) -> "Tagger":
        """Another tagger on the same encoder."""
        other = Tagger(self.classifier, self.classes, self.count, self.asks)
        other.set_head(head, nouns)
        return other

    @torch.inference_mode()
    def forward(self, pooled: Tensor) -> Tensor:
        """Pooled features, or cells of the grid, [B, Dv] -> probabilities of `names`, [B, len(names)]."""
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

    def asked(self, question: str, patch_features: Tensor) -> str:
        """A question and a picture [N, Dv], the pooled feature first -> "dog 8 left above, ball 2 right": each thing that
        the question names, from 9 for a probability of a third or more, one less for every further third of it, down
        to 0, and the sides where it is seen rather than the other things asked about. "" where nothing is known."""
        found = self._named_in(question) if self.asks else {}
        if not found:
            return ""
        probabilities = self(patch_features)  # [N, V]
        seen = torch.stack([probabilities[:, places].sum(-1) for places in found.values()]).clamp(min=1e-9)
        levels = [max(0, 9 - int(-math.log(value, 3))) for value in seen[:, 0].tolist()]
        evidence = seen[:, 1:].log()  # [asked, cells]
        if len(found) > 1:
            evidence = evidence - evidence.mean(0)
        sides = [_sides(row) for row in evidence.softmax(-1)]
        return ", ".join(
            " ".join([name, str(level), *where])
            for name, level, where in zip(found, levels, sides, strict=True)
        )

    def _named_in(self, question: str) -> dict[str, list[int]]:
        """The names in a text, in order, the longest that fit, each with its places in `names`."""
        said = [word for word in content_words(question) if word not in QUESTION_WORDS]
        found: dict[str, list[int]] = {}
        start = 0
        while start < len(said):
            for length in range(min(self.longest, len(said) - start), 0, -1):
                if places := self.by_words.get(tuple(said[start : start + length])):
                    found[self.names[places[0]]] = places
                    start += length - 1
                    break
            start += 1
        return found

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


def _sides(shares: Tensor) -> list[str]:
    """How much of a thing is seen in each cell of a square grid [N], which sums to 1 -> the sides of its centre."""
    size = math.isqrt(len(shares))
    places = torch.linspace(-1, 1, size, device=shares.device) if size > 1 else shares.new_zeros(1)
    grid = shares.view(size, size)
    centre = (grid.sum(0) @ places).item(), (grid.sum(1) @ places).item()
    return [pair[along > 0] for pair, along in zip(SIDES, centre, strict=True) if abs(along) >= OFF_CENTRE]
