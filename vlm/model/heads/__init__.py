"""What one trunk, a Q-Former that reads text beside its queries, is trained to do: one file a task.

BLIP-2's first stage (arXiv:2301.12597) is three of them together: retrieval, matching and caption. A new one is a file with
a module that has `loss(trunk, batch)`, and a case in `build_head`.
"""

from torch import nn

from vlm.errors import UserError
from vlm.model.heads.caption import Caption
from vlm.model.heads.matching import Matching
from vlm.model.heads.retrieval import Retrieval
from vlm.model.heads.vqa import Vqa

TASKS = ("retrieval", "matching", "caption", "vqa")


def build_head(task: str, width: int, vocabulary: int, answers: int) -> nn.Module:
    """`width` of the trunk's states, `vocabulary` of its word pieces, `answers` to choose from."""
    match task:
        case "retrieval":
            return Retrieval(width)
        case "matching":
            return Matching(width)
        case "caption":
            return Caption(width, vocabulary)
        case "vqa":
            return Vqa(width, answers)
    raise UserError(f"There is no task {task!r}. Valid: {', '.join(TASKS)}.")
