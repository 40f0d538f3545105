"""Answers under way in llama.cpp, and their next positions as the arrays of one batch."""

import ctypes
import queue
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vlm.engines import Sampling, next_key
from vlm.engines.llama_library import Batch
from vlm.engines.sampling import Sampler
from vlm.engines.slots import Slot


@dataclass(eq=False)
class Job:
    """One answer under way. `fuse`: ids [n] -> their embeddings with the last picture in them; None where words are read as
    they are. `in_sight`: the digest of that picture."""

    prompt: list[np.ndarray]  # runs still to read: ids [n], or embeddings [n, Dl] in float32
    keys: list[Hashable]
    adapter: bool
    sampling: Sampling
    sampler: Sampler
    fuse: Callable[[np.ndarray], np.ndarray] | None = None
    in_sight: bytes | None = None
    out: "queue.SimpleQueue[Any]" = field(default_factory=queue.SimpleQueue)  # tokens, an error, ENDED
    stopped: bool = False
    slot: Slot | None = None
    token: int = -1  # the last one chosen, to be decoded next; -1 while the prompt is read
    written: int = 0

    def read(self, count: int) -> np.ndarray:
        """The next `count` positions of the first run, taken off it."""
        piece, rest = self.prompt[0][:count], self.prompt[0][count:]
        self.prompt[:1] = [rest] if len(rest) else []
        return piece


class BatchRows:
    """The arrays of a llama.cpp batch, used again for every step."""

    def __init__(self, size: int, embedding_size: int) -> None:
        self.tokens: np.ndarray = np.zeros(size, np.int32)
        self.embeddings: np.ndarray = np.zeros((size, embedding_size), np.float32)
        self.positions: np.ndarray = np.zeros(size, np.int32)
        self.slots: np.ndarray = np.zeros(size, np.int32)
        self.wanted: np.ndarray = np.zeros(size, np.int8)
        # llama.cpp takes a list of slots for each row: here a list of one
        self.counts: np.ndarray = np.ones(size, np.int32)
        self.pointers: np.ndarray = self.slots.ctypes.data + self.slots.itemsize * np.arange(
            size, dtype=np.uint64
        )
        self.count = 0
        self.visual = False
        self.wanting: list[tuple[Job, int]] = []

    def add(self, job: Job, piece: np.ndarray, wants_scores: bool) -> None:
        """The next positions of a job: ids [n], or embeddings [n, Dl]; scores are wanted of the last. Behind the prompt it
        is one position, the token that was chosen last."""
        slot, rows = job.slot, slice(self.count, self.count + len(piece))
        assert slot is not None
        self.visual = piece.ndim == 2
        (self.embeddings if self.visual else self.tokens)[rows] = piece
        start = len(slot.keys)
        self.positions[rows] = np.arange(start, start + len(piece))
        self.slots[rows], self.wanted[rows] = slot.number, 0
        in_prompt = job.keys[start : start + len(piece)]
        slot.keys += in_prompt or [next_key(job.token, job.in_sight)]
        self.count += len(piece)
        if wants_scores:
            self.wanted[self.count - 1] = 1
            self.wanting.append((job, self.count - 1))

    def take(self) -> tuple[Batch, list[tuple[Job, int]]]:
        """The batch, and the rows whose scores are wanted; what is added next makes another."""
        batch = Batch(n_tokens=self.count)
        if self.visual:
            batch.embd = _pointer(self.embeddings, ctypes.c_float)
        else:
            batch.token = _pointer(self.tokens, ctypes.c_int32)
        batch.pos = _pointer(self.positions, ctypes.c_int32)
        batch.n_seq_id = _pointer(self.counts, ctypes.c_int32)
        batch.seq_id = _pointer(self.pointers, ctypes.POINTER(ctypes.c_int32))
        batch.logits = _pointer(self.wanted, ctypes.c_int8)
        wanting, self.wanting, self.count = self.wanting, [], 0
        return batch, wanting


def _pointer(array: np.ndarray, kind: Any) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(kind))
