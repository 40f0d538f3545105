"""The assistant that answers now, and the change to another preset while the page is up.

One model at a time: the one before is let go of before the next is loaded, so that a machine needs the memory of one
only. Unusual: nothing here waits for answers under way. The page queues a change behind them, and what comes later
behind the change.
"""

import traceback
from functools import cached_property

import torch

from vlm.chat.assistant import Assistant, free_memory, load_assistant
from vlm.config import load_model_config, preset_names
from vlm.errors import UserError
from vlm.model.adapter import model_config_of
from vlm.model.sizes import fits


def runnable_presets() -> list[str]:
    """The shipped presets that this machine has the memory for. Takes seconds: every model is laid out."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return [name for name in preset_names() if fits(load_model_config(name), device)]


class Serving:
    """`adapter` goes with `preset`, as they were given at the start; every other preset comes with its own."""

    def __init__(self, assistant: Assistant, preset: str = "embedded", adapter: str | None = None) -> None:
        self._assistant: Assistant | None = assistant
        self._adapters = {preset: adapter}
        self.preset = preset

    @property
    def assistant(self) -> Assistant:
        if self._assistant is None:
            raise UserError("No model is loaded. Please choose one under About this model.")
        return self._assistant

    @cached_property
    def presets(self) -> list[str]:
        """What can be switched to: runnable shipped presets, and the one of the start, which may be a file."""
        return sorted({*self._adapters, *runnable_presets()})

    def switch(self, preset: str) -> None:
        """Serve another preset. Where it cannot be loaded, the one before is loaded again and UserError is raised."""
        if preset not in self.presets:
            raise UserError(f"There is no preset {preset!r} here. There are: {', '.join(self.presets)}.")
        if preset == self.preset and self._assistant:
            return
        model_config_of(
            preset, self._adapters.get(preset)
        )  # mistakes in it are found while the old one answers
        before = self.preset
        try:
            self._load(preset)
        except Exception as problem:
            let_go(problem)
            self._load(before)
            raise

    def _load(self, preset: str) -> None:
        self._assistant = None
        free_memory()
        self._assistant = load_assistant(preset, self._adapters.get(preset))
        self.preset = preset


def let_go(problem: BaseException | None) -> None:
    """Free what the frames of an error, and of the errors that it comes from, hold: a model that is loaded in part."""
    while problem:
        traceback.clear_frames(problem.__traceback__)
        problem = problem.__context__
