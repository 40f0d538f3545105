"""Batches that do not fit the memory, for losses that compare all pairs: gradient caching (GradCache, arXiv:2101.06983).

The batch is embedded piece by piece without a graph; the loss of all embeddings gives the gradient of each; the pieces are
embedded again, now with a graph, and handed those gradients. The result is the gradient of the whole batch, for twice the
forward work and the memory of one piece. A batch that is one piece, of one process, is embedded once.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, distributed, nn

from training.aligners.contrast import Loss
from vlm.model.aligner import EmbeddedPairs


def world() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def gather(values: Tensor) -> Tensor:
    """Those of all processes [B, ...] -> [W * B, ...]; only this process's own keep their gradient."""
    if world() == 1:
        return values
    parts = [torch.empty_like(values) for _ in range(world())]
    distributed.all_gather(parts, values.detach().contiguous())
    parts[distributed.get_rank()] = values
    return torch.cat(parts)


def random_state() -> list[Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]


def set_random_state(state: Sequence[Tensor]) -> None:
    torch.set_rng_state(state[0])
    if len(state) > 1:
        torch.cuda.set_rng_state_all(list(state[1:]))


def cached_backward(
    embed: Callable[..., EmbeddedPairs],
    pieces: Sequence[tuple[Tensor, ...]],
    loss_of: Callable[[Tensor, Tensor], Loss],
    free: Sequence[nn.Parameter],
    backward: Callable[[Tensor], Any],
    unsynchronised: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Loss:
    """Add the loss's gradients to the parameters of `embed`, and to the `free` ones, which the loss itself holds. Returns
    the loss, detached.

    `pieces` are the batch of B pairs, divided: each holds the arguments of `embed`, of its b pairs [b, ...]. `loss_of` is
    given the embeddings of all of them, pictures and texts [B, E].

    `backward` may scale what it is given (mixed precision). Of several processes each has the loss of all pairs and adds
    its own part of the gradients, whose mean DistributedDataParallel takes over processes: hence the factor. Within
    `unsynchronised` it does not; the last piece ends that."""
    if len(pieces) == 1 and world() == 1:  # its graph may as well be kept
        loss = loss_of(*embed(*pieces[0]))
        # those that the loss leaves out get zeros
        backward(loss.total + sum(0 * each.sum() for each in free))
        return Loss(*(each.detach() for each in loss))
    states, seen = [], []
    with torch.no_grad():
        for piece in pieces:
            states.append(random_state())
            seen.append(embed(*piece))
    after = random_state()
    pictures = torch.cat([each.pictures for each in seen]).requires_grad_()
    texts = torch.cat([each.texts for each in seen]).requires_grad_()
    loss = loss_of(pictures, texts)
    *of_embeddings, rest = _gradients(loss.total, pictures, texts, free)
    sizes = [len(each.pictures) for each in seen]
    parts = list(zip(*(each.split(sizes) for each in of_embeddings), strict=True))
    for place, (piece, state, (of_pictures, of_texts)) in enumerate(zip(pieces, states, parts, strict=True)):
        last = place == len(pieces) - 1
        with nullcontext() if last else unsynchronised():
            set_random_state(state)
            again = embed(*piece)
            surrogate = world() * ((again.pictures * of_pictures).sum() + (again.texts * of_texts).sum())
            if last:
                surrogate = surrogate + sum((each * own).sum() for each, own in zip(free, rest, strict=True))
            backward(surrogate)
    set_random_state(after)
    return Loss(*(each.detach() for each in loss))


def _gradients(
    loss: Tensor, pictures: Tensor, texts: Tensor, free: Sequence[nn.Parameter]
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Of a loss that need not depend on all of `free`."""
    found = torch.autograd.grad(loss, [pictures, texts, *free], allow_unused=True)
    known = [
        torch.zeros_like(each) if own is None else own for own, each in zip(found[2:], free, strict=True)
    ]
    return found[0], found[1], known
