"""python -m training.compare_parts --language smollm2-135m --examples 1600

Trains each connector and each fusion of training/presets/parts on the same pictures and the same number of examples, and
asks each about the same held-out pictures. A cell is one combination. Its scores are kept in a file of its own under
--results, and a cell whose file is there is not trained again. Killed, the same command goes on from the last checkpoint of
its cell. --cells names some of them; --table only writes the table and the plot of what is there. The cell "untrained" is
the baseline: the language model as it is, behind a fresh connector.
"""

import argparse
import json
import logging
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from training import finetune
from training.adapters.conversations import Collator, check_sources
from training.adapters.epochs import lay_out
from training.config import PRESET_FOLDER, TrainingConfig
from training.data import read_rows, sources_of
from training.data.features import FeatureStore
from training.digest import digest
from training.parts_table import PLOT, TABLE, draw, table
from training.runs.log_lines import LOG, log_lines
from training.runs.resources import training_in
from training.scores.part_scores import asked_features, chosen_questions, score_parts
from training.scores.selection import listed
from vlm.config import ModelConfig, load_model_config
from vlm.config_reader import from_dict, load_preset, to_dict
from vlm.errors import UserError
from vlm.model.adapter import load_adapter
from vlm.model.connectors import token_count
from vlm.model.vlm import VisionLanguageModel, build_model, text_size
from vlm.terminal import command
from vlm.whole_files import write_json, write_whole

log = logging.getLogger("training")
SPARE = (
    "in a copy of the preset choose a smaller batch_size with as much more gradient_accumulation, or "
    "gradient_checkpointing: true, and begin again with another --output and --results"
)
ROOT = Path(__file__).parents[1]
UNTRAINED = "untrained"
FIRST_STAGE, RATE = "connector_from", "connector_learning_rate"  # keys of a cell that are training's
TIMED = 2  # batches; the first is slower


@dataclass(frozen=True)
class Comparison:
    """A file of training/presets/parts."""

    model: dict[str, Any] = field(default_factory=dict)  # of every cell, as in a model preset
    training: TrainingConfig = field(default_factory=TrainingConfig)
    projector_share: float = 0.25  # of the examples, for the projector's own stage
    # name -> what is its own in the model; and for one that begins as a run of training.heads, connector_from and the
    # connector_learning_rate with which it goes on
    cells: dict[str, dict[str, Any]] = field(default_factory=dict)


def load_comparison(language: str) -> Comparison:
    return load_preset(
        Comparison, language, PRESET_FOLDER / "parts", "training preset", " for comparing parts"
    )


def own_parts(comparison: Comparison, name: str) -> dict[str, Any]:
    return comparison.cells["mlp" if name == UNTRAINED else name]


def cell_config(comparison: Comparison, name: str) -> ModelConfig:
    own = {
        part: value for part, value in own_parts(comparison, name).items() if part not in (FIRST_STAGE, RATE)
    }
    config = from_dict(ModelConfig, {"name": name, **comparison.model, **own}, f"cell {name}")
    if config.vision.encoder == "embeddings":
        raise UserError(
            f"The cell {name} has embeddings and no encoder, which is to see a white picture as well."
        )
    return config


def cell_digest(comparison: Comparison, name: str) -> str:
    """Of all that a cell is made of; those of one table differ in their own part alone."""
    return digest([replace(comparison, cells={name: own_parts(comparison, name)})])


def cell_training(
    comparison: Comparison, config: ModelConfig, preset: Path, examples: int, output: Path, data: Path
) -> TrainingConfig:
    """Both stages together see `examples` conversations. Without a LoRA the language model itself learns."""
    training, own = comparison.training, own_parts(comparison, config.name)
    rate = {RATE: own[RATE]} if RATE in own else {}
    train = "projector+lora" if config.lora.rank else "projector+language"
    steps = max(2, examples // (training.batch_size * training.gradient_accumulation))
    alone = max(1, round(comparison.projector_share * steps))
    return replace(
        training,
        model=str(preset),
        data=str(data),
        output=str(output),
        connector_from=own.get(FIRST_STAGE),
        projector_stage=replace(training.projector_stage, max_steps=alone, **rate),
        joint_stage=replace(training.joint_stage, train=train, max_steps=steps - alone, **rate),
    )


def run_cell(comparison: Comparison, name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train the cell, or go on with it, and score it."""
    folder, config = arguments.output / name, cell_config(comparison, name)
    folder.mkdir(parents=True, exist_ok=True)
    preset = folder / "model.yaml"
    write_whole(preset, yaml.safe_dump(to_dict(config), sort_keys=False))
    training = cell_training(comparison, config, preset, arguments.examples, folder, arguments.data)
    if name != UNTRAINED:
        finetune.run(training)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = build_model(config, device)
    questions = chosen_questions(arguments.data, arguments.questions)
    store = FeatureStore(arguments.data, config.vision)
    features = asked_features(arguments.data, store, model.eyes.vision, questions)
    if name == UNTRAINED:
        fresh_connector(model, torch.stack(list(features.values())).to(device))
    else:
        load_adapter(model, folder / "adapter")
    scores = score_parts(model, questions, features, config.answers.image_system)
    write_json(scores.pop("answers"), folder / "answers.json")
    return {
        "cell": name,
        "connector": to_dict(config.connector),
        "fusion": to_dict(config.fusion),
        "language": config.language.weights,
        "device": device,
        "visual_tokens": token_count(config.connector, model.eyes.vision.feature_count),
        **({} if name == UNTRAINED else cost(model, store, training, arguments.examples)),
        **scores,
    }


def fresh_connector(model: VisionLanguageModel, features: torch.Tensor) -> None:
    """Features [M, N, Dv] -> visual tokens of random directions, as large as words."""
    model.connector.standardise(features)
    model.connector.scale_to(text_size(model.language), features)


def cost(
    model: VisionLanguageModel, store: FeatureStore, training: TrainingConfig, examples: int
) -> dict[str, Any]:
    """What training took: examples, parameters, loss, and on a CPU the seconds of one of its cores for a step."""
    on_cpu, batches = model.language.model.device.type == "cpu", training.gradient_accumulation
    trained = [each for part in model.train_only(training.joint_stage.train).values() for each in part]
    return {
        "examples": examples,
        "batch_size": training.batch_size * batches,
        "trained_parameters": sum(parameter.numel() for parameter in trained),
        "loss": last_loss(Path(training.output) / LOG),
        **(
            {"core_seconds_a_step": round(batches * step_seconds(model, store, training), 2)}
            if on_cpu
            else {}
        ),
    }


def last_loss(log: Path) -> float | None:
    """The mean of the last fifth of the losses of the joint stage, each step counted once; None where none was logged."""
    lines = [line for line in log_lines(log) if line["stage"] == "joint"]
    losses = {line["step"]: line["loss"] for line in lines if "loss" in line}  # of a repeated step the later
    last = [losses[step] for step in sorted(losses)][-max(1, len(losses) // 5) :]
    return round(sum(last) / len(last), 4) if last else None


def step_seconds(model: VisionLanguageModel, store: FeatureStore, training: TrainingConfig) -> float:
    """The least of a few batches of the joint stage, in seconds of processor time, which other programs do not lengthen."""
    known = read_rows(Path(training.data), "train", training.source_names)
    rows = [row for row in known if row.picture in store]
    system = load_model_config(training.model).answers.image_system
    examples = lay_out(rows, store, {}, model, training, system, training.sources, epochs=1)
    collate, dtype = Collator(model), model.language.dtype
    autocast = torch.autocast(model.language.model.device.type, dtype, enabled=dtype is not torch.float32)
    model.train()
    seconds = []
    for start in range(0, TIMED * training.batch_size, training.batch_size):
        batch = collate(
            [examples[place % len(examples)] for place in range(start, start + training.batch_size)]
        )
        began = time.process_time()
        with autocast:
            loss = model(**batch)["loss"]
        loss.backward()
        seconds.append(time.process_time() - began)
    model.eval()
    return min(seconds)


def write_table(results: Path, language: str) -> str:
    """The table and the plot of all cells that are done."""
    found = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(results.glob("*.json"))]
    if not found:
        raise UserError(
            f"{results} holds no results yet. Run python -m training.compare_parts --language {language}"
        )
    text = table(found)
    write_whole(results / TABLE, text + "\n")
    draw(found, results / PLOT)
    return text


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.compare_parts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--language", default="smollm2-135m", help="a file of training/presets/parts, or one of yours")
    add("--examples", type=int, default=1600, help="conversations that each cell is trained on")
    add("--cells", type=listed, help="only these, with commas between")
    add("--questions", type=int, help="at most so many held-out questions of each kind")
    add("--data", type=Path, default=Path("data/embedded"), help="folder of parquet files")
    add("--output", type=Path, default=Path("runs/parts"), help="folder of the runs")
    add("--results", type=Path, help="folder of the scores (default: assets/parts/LANGUAGE)")
    add("--table", action="store_true", help="only write the table and the plot of what is there")
    return parser.parse_args()


def run(arguments: argparse.Namespace) -> str:
    language = Path(arguments.language).name.removesuffix(".yaml").removesuffix(".yml")
    results = arguments.results or ROOT / "assets" / "parts" / language
    if arguments.table:
        return write_table(results, arguments.language)
    comparison = load_comparison(arguments.language)
    known = [UNTRAINED, *comparison.cells]
    cells = arguments.cells or [*comparison.cells, UNTRAINED]
    if unknown := [name for name in cells if name not in known]:
        raise UserError(f"There is no cell {', '.join(unknown)}. There are: {', '.join(known)}.")
    results.mkdir(parents=True, exist_ok=True)
    for name in cells:
        cell_config(comparison, name)  # a wrong one is told before the first is trained
    if waiting := [name for name in cells if not (results / f"{name}.json").is_file()]:
        check_first_stages(comparison, waiting)
        check_data(comparison, arguments)
    for name in cells:
        asked = {
            "examples": arguments.examples,
            "questions": arguments.questions,
            "cell": cell_digest(comparison, name),
        }
        file = results / f"{name}.json"
        if file.is_file():
            check_same(file, asked)
            log.info("cell %s is done already", name)
            continue
        log.info("cell %s", name)
        write_json(run_cell(comparison, name, arguments) | {"asked": asked}, file)
    return write_table(results, arguments.language)


def check_first_stages(comparison: Comparison, cells: Sequence[str]) -> None:
    """The runs that some cells begin as are there. Raises UserError."""
    for name in cells:
        run = own_parts(comparison, name).get(FIRST_STAGE)
        if run and not Path(run).is_dir():
            raise UserError(
                f"The cell {name} begins as the run {run}, which is not there. Make it with python -m training.heads "
                f"--preset q-former --output {run}, or name the other cells with --cells."
            )


def check_data(comparison: Comparison, arguments: argparse.Namespace) -> None:
    """The data have all that the cells are trained on and asked about. Raises UserError."""
    known = {source for source, split in sources_of(arguments.data) if split == "train"}
    check_sources(known, comparison.training.source_names)
    chosen_questions(arguments.data, arguments.questions)


def check_same(file: Path, asked: dict[str, Any]) -> None:
    """A cell that is done was trained with the settings of today. Raises UserError."""
    if json.loads(file.read_text(encoding="utf-8")).get("asked") != asked:
        raise UserError(
            f"{file} is of another comparison (examples, questions or preset). Remove it, or give another --results."
        )


@command("compare_parts")
def main() -> None:
    arguments = parse()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with nullcontext() if arguments.table else training_in(arguments.output, arguments.data, SPARE):
        print(run(arguments))


if __name__ == "__main__":
    main()
