"""The model that answers now, and the change to another preset while the page is up.

There is one model at a time. It is let go of before the next is loaded, so that a machine needs the memory of one only.
"""

import traceback
from functools import cached_property

import torch

from vlm.chat.assistant import Assistant, free_memory, load_assistant
from vlm.config import load_model_config, preset_names
from vlm.errors import UserError
from vlm.model.adapter_fit import model_config_of
from vlm.serving.limits import NotNow


def runnable_presets() -> list[str]:
    """The shipped presets that this machine has the memory for. Takes seconds: every model is laid out."""
    # with it come Transformers' models and PEFT, half of the time that a page without them takes to start
    from vlm.model.sizes import fits

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return [name for name in preset_names() if fits(load_model_config(name), device)]


class LoadedModel:
    """`adapter` goes with `preset`, as they were given at the start; every other preset comes with its own."""

    def __init__(self, assistant: Assistant, preset: str, adapter: str | None) -> None:
        self._assistant: Assistant | None = assistant
        # without a model these are what they were before
        self.parallel, self.settings = assistant.engine.parallel, assistant.settings
        self._adapters = {preset: adapter}
        self.preset = preset

    @property
    def loaded(self) -> bool:
        return self._assistant is not None

    @property
    def assistant(self) -> Assistant:
        """Raises NotNow."""
        if self._assistant is None:
            raise NotNow(
                "No model is loaded now. Wait if one is being changed, or choose one under About this model."
            )
        return self._assistant

    @property
    def named_presets(self) -> list[str]:
        """Every preset that may be asked for, whether or not this machine can run it."""
        return sorted({*self._adapters, *preset_names()})

    @cached_property
    def presets(self) -> list[str]:
        """What can be switched to: runnable shipped presets, and the one of the start, which may be a file."""
        return sorted({*self._adapters, *runnable_presets()})

    def check(self, preset: str) -> None:
        """Raises UserError where there is no such preset."""
        if preset not in self.presets:
            raise UserError(f"There is no preset {preset!r} here. There are: {', '.join(self.presets)}.")

    def change(self, preset: str) -> None:
        """Load another preset in place of this one. Where it cannot be loaded, the one before is loaded again and UserError
        is raised."""
        if preset == self.preset and self._assistant:
            return
        model_config_of(preset, self._adapters.get(preset))  # find mistakes while the old one is still there
        before = self.preset
        try:
            self._load(preset)
        except Exception as problem:
            let_go(problem)
            self._load(before)
            raise

    def _load(self, preset: str) -> None:
        if self._assistant:
            self._assistant.close()
        self._assistant = None
        free_memory()
        self._assistant = load_assistant(preset, self._adapters.get(preset))
        self.parallel, self.settings = self._assistant.engine.parallel, self._assistant.settings
        self.preset = preset


def let_go(problem: BaseException | None) -> None:
    """Free what the frames of an error, and of the errors that it comes from, hold: a model that is loaded in part."""
    while problem:
        traceback.clear_frames(problem.__traceback__)
        problem = problem.__context__
