"""An assistant whose model runs on ZeroGPU, the GPU that Hugging Face lends to a Space for one function call at a time.

The call runs in a process of its own, forked from the app's: what goes in and out is pickled, and of an exception only
the name of its class comes back. So a UserError is sent as the last value, and raised on this side.
Speech stays in the app's process: Whisper runs on the CPU, in threads that a fork would not have.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Any

from vlm.chat.assistant import Answer, Assistant, Settings, Steps
from vlm.chat.clean_up import MAX_NEW_TOKENS
from vlm.errors import UserError

# What a call may take, in seconds. It is taken from the visitor's quota at first and limits the call, so it should be
# enough for the slowest preset (Phi-3.5 in 4 bits, with its LoRA) and not much more.
START_SECONDS = 15  # the weights onto the GPU, the pictures, the prompt
SECONDS_A_TOKEN = 0.08


def gpu_seconds(answer: Answer, question: str, images: Any, history: Any, settings: Settings) -> int:
    """For how long the GPU is asked for; the arguments are those of `Assistant.reply`."""
    tokens = settings.max_new_tokens + (MAX_NEW_TOKENS if settings.clean_up else 0)
    return START_SECONDS + round(SECONDS_A_TOKEN * tokens)


def run_on(gpu: Callable[..., Any], assistant: Assistant) -> Assistant:
    """The same assistant, which replies within calls that `gpu`, that is `spaces.GPU`, decorates."""
    reply = assistant.reply

    def in_its_process(*arguments: Any) -> Iterator[Answer | UserError]:
        try:
            yield (yield from reply(*arguments))
        except UserError as problem:
            yield problem

    on_gpu: Callable[..., Generator[Answer | UserError, None, None]] = gpu(
        in_its_process, duration=gpu_seconds
    )

    def reply_from_there(*arguments: Any) -> Steps:
        last = arguments[0]
        with closing(on_gpu(*arguments)) as snapshots:
            for last in snapshots:
                if isinstance(last, UserError):
                    raise last
                yield last
        return last

    assistant.reply = reply_from_there  # type: ignore[method-assign, assignment]
    return assistant
