"""What one trunk, a Q-Former that reads text beside its queries, is trained to do: one file a task.

BLIP-2's first stage (arXiv:2301.12597) is three of them together: retrieval, matching and caption. A new one is a file with
a module that has `loss(trunk, batch)`, a line in TASKS, a case in training/tasks/scores.py (how it is measured), and, where
it learns from questions and not from captions, its name in `texts_of` (training/tasks/data.py).
"""

from collections.abc import Callable

from torch import nn

from vlm.model.heads.caption import Caption
from vlm.model.heads.matching import Matching
from vlm.model.heads.retrieval import Retrieval
from vlm.model.heads.vqa import Vqa

# `width` of the trunk's states, `vocabulary` of its word pieces, `answers` to choose from -> the head
TASKS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "retrieval": lambda width, vocabulary, answers: Retrieval(width),
    "matching": lambda width, vocabulary, answers: Matching(width),
    "caption": lambda width, vocabulary, answers: Caption(width, vocabulary),
    "vqa": lambda width, vocabulary, answers: Vqa(width, answers),
}
