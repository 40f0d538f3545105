"""An engine that runs on ZeroGPU, the GPU that Hugging Face lends to a Space for one function call at a time.

The call runs in a process of its own, forked from the app's. What goes in and out is pickled, and of an exception only
the name of its class comes back, so errors that the assistant knows are sent as the last value and raised on this side.
Everything but the engine stays in the app's process, which may not use CUDA: the picture encoder runs on its CPU.
"""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from typing import Any

import torch

from vlm.chat.assistant import Assistant
from vlm.chat.local_writer import LocalWriter
from vlm.engines import Engine, Prompt, Sampling
from vlm.errors import UserError

# What a call may take, in seconds. The visitor's quota must cover it, and the call is ended after it, so it should be
# enough for the slowest preset (Phi-3.5 in 4 bits, with its LoRA) and not much more.
START_SECONDS = 15  # the weights onto the GPU, the prompt
SECONDS_A_TOKEN = 0.08


def gpu_seconds(prompt: Prompt, adapter: bool, sampling: Sampling) -> int:
    """For how long the GPU is asked for; the arguments are those of `Engine.stream`."""
    return START_SECONDS + round(SECONDS_A_TOKEN * sampling.max_new_tokens)


class BorrowedGpuEngine:
    """`engine`, whose `stream` is `on_gpu`."""

    reads_ahead = False  # a visitor's quota is for answers

    def __init__(
        self, engine: Engine, on_gpu: Callable[..., Generator[int | None | Exception, None, None]]
    ) -> None:
        self.engine, self.on_gpu = engine, on_gpu
        self.name, self.device = engine.name, engine.device
        self.parallel, self.context = engine.parallel, engine.context

    def stream(self, prompt: Prompt, adapter: bool, sampling: Sampling) -> Generator[int | None, None, None]:
        """Closing it ends the call, and with it the loan."""
        sent = [part.detach().cpu() if isinstance(part, torch.Tensor) else part for part in prompt]
        with closing(self.on_gpu(sent, adapter, sampling)) as received:
            for token in received:
                if isinstance(token, Exception):
                    raise token
                yield token

    def close(self) -> None:
        self.engine.close()


def on_borrowed_gpu(engine: Engine, spaces: Any) -> Engine:
    """The same engine, each of whose answers is generated within a call that the package `spaces` lends a GPU for."""

    def in_its_process(
        prompt: Prompt, adapter: bool, sampling: Sampling
    ) -> Generator[int | None | Exception, None, None]:
        try:
            yield from engine.stream(prompt, adapter, sampling)
        except (UserError, torch.OutOfMemoryError) as problem:
            yield problem

    return BorrowedGpuEngine(engine, spaces.GPU(in_its_process, duration=gpu_seconds))


def borrow_gpu(assistant: Assistant, spaces: Any) -> None:
    """Let the assistant's engine run on ZeroGPU, and its eyes on this process's CPU. A server needs neither."""
    writer = assistant.pipeline.writer
    if not isinstance(writer, LocalWriter):
        return
    borrowed = replace(writer, engine=on_borrowed_gpu(writer.engine, spaces))
    assistant.pipeline = replace(assistant.pipeline, writer=borrowed)
    if writer.sights:
        writer.sights.eyes.cpu()
