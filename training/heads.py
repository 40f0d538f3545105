"""python -m training.heads --preset q-former: tasks over one trunk, a Q-Former that reads text beside its queries.

The presets in training/presets/heads: `q-former`, BLIP-2's first stage (contrast, matching with hard negatives, captions);
`vqa`, a classifier of answers; `multi-task`, captions, questions and search together. Each task is measured on held-out
pictures. The run's folder holds projector.safetensors, with which finetune goes on as BLIP-2's second stage
(`connector_from`), heads.safetensors, answers.json and metrics.json. Killed, the same command goes on.
"""

import argparse
import json
import logging
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainingArguments, set_seed

from training.adapters.conversations import check_sources
from training.config import PRESET_FOLDER
from training.data import pictures_of, read_rows, sources_of
from training.data.features import FeatureStore
from training.digest import digest
from training.runs.checkpoints import OrderedTrainer, last_whole_checkpoint
from training.runs.resources import training_in
from training.runs.run_settings import claim_folder
from training.tasks.data import TaskSteps, Vocabulary, WordPieces, check_tasks, examples_of, only, texts_of
from training.tasks.scores import score_tasks
from vlm.config import TextConfig, VisionConfig
from vlm.config_reader import PartConfig, load_preset, to_dict
from vlm.errors import UserError
from vlm.model.adapter import CONNECTOR_FILE, TASKS_FILE
from vlm.model.connectors import connector_settings
from vlm.model.connectors.q_former import QFormer, without_text
from vlm.model.encoders import build_encoder
from vlm.model.heads.multi_task import MultiTask, build_multi_task
from vlm.model.text_encoders import load_words
from vlm.terminal import command
from vlm.weights.tensor_files import save_tensors, to_store
from vlm.whole_files import write_json, write_whole

log = logging.getLogger("training")
SPARE = "in a copy of the preset choose a smaller batch_size, and begin again with another --output"


@dataclass(frozen=True)
class TasksConfig:
    """A preset of training/presets/heads."""

    data: str = "data/embedded"
    output: str = "runs/heads"
    sources: tuple[str, ...] = ("flickr8k", "coco-train2017", "daquar", "ade20k")
    vision: VisionConfig = VisionConfig(image_size=320, blocks=(6, 10), tags=0)
    trunk: PartConfig = field(
        default_factory=lambda: PartConfig("q-former", {"queries": 25, "layers": 4, "width": 384, "heads": 6})
    )
    embedding_size: int = 576  # of the language model that it will be a connector to
    text: TextConfig = TextConfig(max_length=40)  # whose word pieces the trunk reads
    tasks: dict[str, float] = field(default_factory=dict)  # with the weight of each
    weighting: str = "fixed"  # or uncertainty, which begins with these
    answers: int = 500  # of the vocabulary
    batch_size: int = 32
    steps: int = 600
    learning_rate: float = 3e-4
    warmup_steps: int = 50
    feature_noise: float = 0.2
    seed: int = 0
    logging_steps: int = 10
    save_steps: int = 100


FREE = ("data", "output", "logging_steps", "save_steps")  # settings that change nothing of what is learned


class TaskTrainer(OrderedTrainer):
    """Trainer whose log has the loss of each task, the mean since the line before as the whole loss is, and what it is
    multiplied with."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self.losses: dict[str, list[float]] = defaultdict(list)

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        found = model(inputs)
        for task, loss in found.items():
            if task != "loss":
                self.losses[task].append(float(loss))
        return (found["loss"], found) if return_outputs else found["loss"]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            shares = self.accelerator.unwrap_model(self.model).weighting.shares()
            logs |= {task: sum(each) / len(each) for task, each in self.losses.items()}
            logs |= {f"weight/{task}": share for task, share in shares.items()}
            self.losses.clear()
        super().log(logs, start_time)


def build_trunk(config: TasksConfig, feature_size: int, words: int) -> QFormer:
    """`words`: word pieces of the tokenizer; one more says "write a caption"."""
    settings = config.trunk.settings | {"vocabulary": words + 1, "text_length": config.text.max_length}
    trunk = connector_settings(PartConfig(config.trunk.kind, settings)).build(
        feature_size, config.embedding_size
    )
    if not isinstance(trunk, QFormer):
        raise UserError(f"The trunk is a q-former, and {config.trunk.kind!r} was given.")
    trunk.noise = config.feature_noise
    return trunk


def run(config: TasksConfig) -> dict[str, Any]:
    """Train the tasks; write the run's folder. Returns the metrics of each task."""
    if "matching" in config.tasks and config.batch_size < 2:
        raise UserError(
            "The task 'matching' tells the pictures of a batch apart. Set batch_size to 2 or more."
        )
    set_seed(config.seed)
    data, output = Path(config.data), Path(config.output)
    check_sources({source for source, split in sources_of(data) if split == "train"}, config.sources)
    training, held_out = (read_rows(data, split, config.sources) for split in ("train", "validation"))
    known, examples = examples_of(training), examples_of(held_out)
    check_tasks(config.tasks, known, config.sources)
    vocabulary = Vocabulary.of(known["questions"], config.answers)
    if "vqa" in config.tasks:
        for name, questions in {"training": known["questions"], "held out": examples["questions"]}.items():
            if lacking := vocabulary.lacking(questions):
                log.warning("%s: %s They are not learned, and count as wrong.", name, lacking)
        known["questions"] = [each for each in known["questions"] if vocabulary.knows(each)]
    words = WordPieces(load_words(config.text.weights), config.text.max_length)
    encoder = build_encoder(config.vision, "cuda" if torch.cuda.is_available() else "cpu")
    trunk = build_trunk(config, encoder.feature_size, len(words.tokenizer))
    model = build_multi_task(trunk, config.tasks, config.weighting, len(vocabulary.answers))
    told = {name: value for name, value in to_dict(config).items() if name not in FREE}
    claim_folder(
        output,
        told | {"rows": digest([*training, *held_out])},
        "Give the settings from before, or another --output.",
    )
    store, wanted = FeatureStore(data, config.vision), {row.picture for row in [*training, *held_out]}
    for split in ("train", "validation"):
        store.fill(pictures_of(data, split), wanted, encoder)
    trunk.standardise(store.sample(sorted({each.picture for kind in known.values() for each in kind})))

    def features_of(picture: str) -> Tensor:
        return store[picture].float()

    per_task = {task: known[texts_of(task)] for task in config.tasks}
    steps = TaskSteps(
        per_task, features_of, words.tokenize, vocabulary,
        batch_size=config.batch_size, steps=config.steps, seed=config.seed,
    )  # fmt: skip
    train(model, steps, config)
    asked = {task: examples[texts_of(task)] for task in config.tasks}
    save(model, output, vocabulary)
    metrics = score_tasks(model.eval(), asked, features_of, words, vocabulary)
    write_json(metrics, output / "metrics.json")
    return metrics


def train(model: MultiTask, steps: TaskSteps, config: TasksConfig) -> None:
    folder = Path(config.output) / "checkpoints"
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=1,  # a step is a batch of each task already
        max_steps=config.steps,
        learning_rate=config.learning_rate,
        warmup_steps=config.warmup_steps,
        lr_scheduler_type="cosine",
        logging_steps=config.logging_steps,
        save_steps=config.save_steps,
        use_cpu=not torch.cuda.is_available(),
        seed=config.seed,
        data_seed=config.seed,
        report_to="none",
        remove_unused_columns=False,
        disable_tqdm=True,
    )
    trainer = TaskTrainer(model=model, args=arguments, train_dataset=steps, data_collator=only)
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(folder))


def save(model: MultiTask, folder: Path, vocabulary: Vocabulary) -> None:
    save_tensors(without_text(to_store(model.trunk.state_dict(), torch.float32)), folder / CONNECTOR_FILE)
    save_tensors(to_store(model.state_dict(), torch.float32), folder / TASKS_FILE)
    write_whole(folder / "answers.json", json.dumps(vocabulary.answers, ensure_ascii=False))


@command("heads")
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.heads", description=__doc__)
    parser.add_argument(
        "--preset", default="multi-task", help="a preset of training/presets/heads, or a YAML file"
    )
    parser.add_argument("--data", help="folder of parquet files (default: the preset's)")
    parser.add_argument("--output", help="folder of the run")
    parser.add_argument("--steps", type=int)
    overrides = vars(parser.parse_args())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    preset = overrides.pop("preset")
    config = load_preset(
        TasksConfig, preset, PRESET_FOLDER / "heads", "training preset", " of heads", overrides
    )
    with training_in(Path(config.output), Path(config.data), SPARE):
        print(json.dumps(run(config), indent=1))


if __name__ == "__main__":
    main()
