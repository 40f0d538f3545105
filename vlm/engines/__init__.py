"""What runs a language model: a prompt of token ids and visual tokens -> new token ids.

An engine knows nothing of pictures, tokenisers or templates. It holds one set of base weights and, if there is one, the
LoRA of the adapter, which each answer has on or off.
"""

import hashlib
from collections.abc import Generator, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from torch import Tensor

from vlm.errors import UserError

Segment: TypeAlias = list[int] | Tensor  # token ids, or visual tokens [K, Dl]
Prompt: TypeAlias = Sequence[Segment]


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen, and when to stop. Temperature 0 takes the likeliest; above it one is drawn among the
    likeliest that together have `top_p` of the probability, each at least `min_p` times as likely as the first. The score
    of a token that the answer has already is lowered by `repetition_penalty` (arXiv:1909.05858). `begun`: the tokens of an
    answer that is to go on, which end the prompt."""

    max_new_tokens: int = 200
    temperature: float = 0.0
    top_p: float = 0.9
    min_p: float = 0.0
    repetition_penalty: float = 1.1
    seed: int = 0
    end_ids: tuple[int, ...] = ()
    begun: tuple[int, ...] = ()


class Host(Protocol):
    """Where answers are computed: an engine in this process, or a server (vlm/engines/remote.py). `parallel`: how many
    answers it takes on at once."""

    name: str
    device: str
    parallel: int

    def close(self) -> None:
        """Give the memory back."""
        ...


class Engine(Host, Protocol):
    """`context`: the longest prompt and answer together, in tokens. `reads_ahead`: whether it may read what nobody waits
    for yet, since a question that comes meanwhile is taken on at once."""

    context: int
    reads_ahead: bool

    def stream(self, prompt: Prompt, adapter: bool, sampling: Sampling) -> Generator[int | None, None, None]:
        """The new token ids one by one, the end token among them; None now and then while there is none yet, so that
        whoever waits can stop. Closing the iterator stops the model at its next token, or within a piece of the prompt."""
        ...


def prompt_keys(prompt: Prompt, beside: bool = False) -> list[Hashable]:
    """What stands at each position: an id, or of a visual token its picture's digest and its place in it. Prompts with
    equal keys up to a position have the same keys and values in the cache up to there.

    `beside`: the visual tokens take no positions, and each id behind a picture is read with that picture in sight, so that
    its key names both."""
    keys: list[Hashable] = []
    in_sight = None
    for segment in prompt:
        if isinstance(segment, Tensor):
            digest = picture_digest(segment)
            in_sight = digest if beside else None
            keys += [] if beside else [(digest, place) for place in range(len(segment))]
        else:
            keys += [next_key(id, in_sight) for id in segment]
    return keys


def picture_digest(visual_tokens: Tensor) -> bytes:
    return hashlib.sha256(visual_tokens.detach().float().cpu().numpy().tobytes()).digest()


def next_key(id: int, in_sight: bytes | None) -> Hashable:
    """The key of an id, with the digest of the picture that it is read with."""
    return id if in_sight is None else (id, in_sight)


def keys_within(context: int, prompt: Prompt, sampling: Sampling, beside: bool = False) -> list[Hashable]:
    """The prompt's keys. Raises UserError where the prompt and the longest answer together do not fit."""
    keys = prompt_keys(prompt, beside)
    needed = len(keys) + sampling.max_new_tokens
    if needed > context:
        raise UserError(
            f"The question and its answer take up to {needed} tokens and at most {context} fit. Please shorten the "
            "question, or ask for a shorter answer."
        )
    return keys
