"""The commands of training, an index and the server on tiny inputs and tiny models, for what kills them.

Each kind has `make`, which writes what the command reads into a folder, and `run`, which is the command: it ends
when it is done. Both run in a process of their own, whose modules they may change.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

import app
from tests.fake_assistant import FakeAssistant
from tests.talking import TalkingAssistant
from tests.test_bootstrap import write_colours
from tests.test_prepare import drawing, photograph
from tests.test_training import training_on
from tests.tiny import tiny_config, tiny_model
from tests.tiny_aligner import TinyAligner
from tests.tiny_alignment import tiny_aligner, tiny_training, use_tiny_parts, write_pairs
from tests.tiny_gguf import WORDS, save_lora, tiny_causal, tiny_gguf_with_words
from training import align, bootstrap, convert, finetune, prepare
from training.config import PairSource, SourceConfig, StageConfig
from training.data import splits
from training.sources import composited
from vlm.chat import search
from vlm.chat.feedback import feedback_on
from vlm.engines.lora_gguf import lora_as_gguf
from vlm.model import alignment
from vlm.serving.serving import Serving

PAUSE = 0.02  # seconds that a picture takes, where nothing real would


class Command(NamedTuple):
    make: Callable[[Path], Any]
    run: Callable[[Path], Any]


def write_noise(folder: Path, count: int) -> None:
    (folder / "pictures").mkdir()
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / f"{number}.png")


def write_csv(folder: Path, count: int = 40) -> None:
    """Pictures, and three questions about each; some of the lines name a picture that is not there."""
    write_noise(folder, count)
    lines = ["image,question,answer"]
    for number in range(count):
        lines += [f"{number}.png,Which {turn}?,Number {number}." for turn in range(3)]
        lines += [f"absent-{number}.png,Which?,None."] if number % 5 == 0 else []
    (folder / "asked.csv").write_text("\n".join(lines) + "\n")


def run_convert(folder: Path) -> None:
    words = f"--file {folder}/asked.csv --images {folder}/pictures --output {folder}/out"
    words += " --shard-megabytes 0.05"
    sys.argv = ["convert", "csv", *words.split()]
    convert.main()


def run_prepare(folder: Path) -> None:
    splits.TEST_PHOTOGRAPHS, splits.VALIDATION_PHOTOGRAPHS, splits.CONCEPT_SHARE = 3, 2, 0.0
    composited.SCENES = {"train": 12, "validation": 2, "test": 4}
    prepare.SOURCES = {
        "tuxpaint": ((), lambda: [photograph(number) for number in range(40)]),
        "emoji-noto": ((), lambda: [drawing(number) for number in range(100, 180)]),
    }
    sys.argv = ["prepare", "--output", str(folder / "out")]
    prepare.main()


def make_training(folder: Path) -> None:
    write_csv(folder, 12)
    run_convert(folder)


def run_training(folder: Path) -> None:
    config = replace(
        training_on(folder / "out"),
        output=str(folder / "run"),
        sources=(SourceConfig("csv"),),
        save_steps=2,
        projector_stage=StageConfig("projector", max_steps=4),
        joint_stage=StageConfig(epochs=2, max_steps=12),
    )
    finetune.load_training_config = lambda *_, **__: config  # type: ignore[assignment]
    finetune.load_model_config = lambda _: tiny_config()  # type: ignore[assignment]
    finetune.build_model = lambda *_: tiny_model(lora=False)  # type: ignore[assignment]
    sys.argv = ["finetune"]
    finetune.main()


def run_aligner(folder: Path, source: str = "tiny") -> None:
    use_tiny_parts()
    align.report = lambda *_: {"known": 1.0}  # type: ignore[assignment]
    config = replace(tiny_training(folder, folder / "run"), sources=(PairSource(source),))
    align.load_alignment_config = lambda *_, **__: config  # type: ignore[assignment]
    sys.argv = ["align"]
    align.main()


def make_bootstrap(folder: Path) -> None:
    write_colours(folder / "data")
    (folder / "data" / "colours.parquet").rename(folder / "colours.parquet")
    run_aligner(folder, "told")


class SlowAssistant(FakeAssistant):
    def answer(self, *question: Any, **asked: Any) -> Any:
        time.sleep(PAUSE)
        return super().answer(*question, **asked)


def run_bootstrap(folder: Path) -> None:
    alignment.build_aligner = tiny_aligner  # type: ignore[assignment]
    bootstrap.load_assistant = lambda *_: SlowAssistant(parallel=1)  # type: ignore[assignment]
    words = f"--data {folder} --aligner {folder}/run/aligner --output {folder}/out --known told"
    sys.argv = [
        "bootstrap",
        *words.split(),
        *"--pictures untold --limit 60 --texts told --shuffled 0.5".split(),
    ]
    bootstrap.main()


class SlowAligner(TinyAligner):
    def embed_pictures(self, *images: Any) -> Any:
        time.sleep(PAUSE)
        return super().embed_pictures(*images)


def run_index(folder: Path) -> None:
    os.environ["VLM_CACHE"] = str(folder / "cache")
    search.KEPT_EVERY = 5 * PAUSE
    search.Searcher(SlowAligner()).index(folder / "pictures")


def make_server(folder: Path) -> None:
    tiny_gguf_with_words(folder)
    save_lora(tiny_causal("qwen2", vocab_size=len(WORDS)), folder / "lora")
    (folder / "votes").mkdir()


def run_server(folder: Path, port: int, voted: int) -> None:
    """The app with an assistant that has no model, but makes the GGUF file of a LoRA. Once the page stands it keeps
    votes as the thumbs do, and writes the key of each into the pipe `voted` when it is kept."""

    def load(*_: Any) -> TalkingAssistant:
        lora_as_gguf(folder / "lora", folder / "tiny.gguf")
        return TalkingAssistant(words=3)

    class VotingServing(Serving):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            threading.Thread(target=self.vote, daemon=True).start()

        def vote(self) -> None:
            while self.feedback:
                vote = feedback_on("What?", "A cat.", "A dog.", "down", None, "tiny", "")
                os.write(voted, f"{self.feedback.keep(vote)}\n".encode())
                time.sleep(PAUSE)

    app.load_assistant, app.Serving = load, VotingServing  # type: ignore[assignment, misc]
    os.environ |= {"HOST": "127.0.0.1", "PORT": str(port), "VLM_CACHE": str(folder / "cache")}
    os.environ |= {"FEEDBACK": str(folder / "votes"), "GRADIO_TEMP_DIR": str(folder / "uploads")}
    app.main()


COMMANDS = {
    "training": Command(make_training, run_training),
    "aligner": Command(write_pairs, run_aligner),
    "prepare": Command(lambda _: None, run_prepare),
    "convert": Command(write_csv, run_convert),
    "bootstrap": Command(make_bootstrap, run_bootstrap),
    "index": Command(lambda folder: write_noise(folder, 120), run_index),
}
