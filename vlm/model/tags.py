"""Pooled features -> the names of what a picture shows, as text for the prompt.

The encoder's own classifier knows the 1,000 classes of ImageNet. Its best names enter the prompt with their certainty
("object tags", as in Oscar, arXiv:2004.06165, and Tag2Text, arXiv:2303.05657), so that the language model need not learn
every object of the world anew from a few thousand training pictures.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

LEAST = 0.03  # probability of a name that is worth telling


class Tagger:
    """`classifier`: pooled feature [Dc] -> scores of `classes`. At most `count` names are given."""

    def __init__(self, classifier: nn.Linear, classes: Sequence[str], count: int) -> None:
        self.classifier, self.classes, self.count = classifier, list(classes), count

    @torch.inference_mode()
    def tags(self, patch_features: Tensor) -> list[str]:
        """Features of pictures [B, N, Dv], whose first Dc channels the classifier knows -> "tabby 62%, sofa 11%"."""
        pooled = patch_features[..., : self.classifier.in_features].mean(1)
        chances = self.classifier(pooled.to(self.classifier.weight)).float().softmax(-1)
        best, places = chances.topk(self.count)
        return [
            ", ".join(
                f"{self.classes[place]} {round(100 * chance)}%"
                for rank, (chance, place) in enumerate(zip(row, own, strict=True))
                if chance >= LEAST or rank == 0
            )
            for row, own in zip(best.tolist(), places.tolist(), strict=True)
        ]
