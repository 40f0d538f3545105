"""An adapter folder -> what people should know about it, in Markdown: parts, scores, training, data, limits.

Every figure comes from the folder, where training and evaluation wrote it. A missing file is named as missing.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlm.config import ModelConfig
from vlm.markdown_table import table
from vlm.model.adapter_folder import DATA_CARD, LIMITS, read_description, read_metrics
from vlm.weights.resolve import public_name

# Presets with a training preset of their own; the page may be where training/ is not
READY = "embedded", "phi-3.5", "vit-gpt2"
SHOWN = "accuracy", "blank_picture", "question_only"


def about(config: ModelConfig, folder: Path | None) -> str:
    """What the model cannot do, how often it was right, and, folded, all else that its adapter's folder tells."""
    if config.is_remote:
        return remote_parts(config)
    if folder is None:
        return f"{parts(config)}\n\n{how_to_see(config.name)}"
    sections = [
        f"## Limits\n\n{_read_text(folder / LIMITS)}",
        f"## Scores\n\n{scores(read_metrics(folder))}",
        folded("Parts", parts(config)),
        folded("Training", training(read_description(folder).get("training") or {})),
        folded("Data", _read_card(folder / DATA_CARD)),
    ]
    return "\n\n".join(sections)


def folded(title: str, text: str) -> str:
    """Markdown that opens on a click. The blank lines let what is inside be read as Markdown."""
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def how_to_see(preset: str) -> str:
    """What to do about a preset without an adapter. Not each has a training preset of its own."""
    ready = preset in READY
    copied = f"# mine.yaml: a copy of training/presets/phi-3.5.yaml with the line model: {preset}\n"
    return (
        f"**The preset {preset} has no adapter yet: it answers text and speech, but cannot see.** Train one, as the "
        f"README tells, or take one that was trained for it, and start the page with its folder:\n\n"
        f"```\n{'' if ready else copied}"
        f"python -m training.finetune --preset {preset if ready else 'mine.yaml'} --output runs/{preset}\n"
        f"VLM_PRESET={preset} VLM_ADAPTER=runs/{preset}/adapter python app.py\n```"
    )


def parts(config: ModelConfig) -> str:
    vision, connector, language, lora = config.vision, config.connector, config.language, config.lora
    own = vision.encoder == "efficientnet-lite2"
    seen = f"pictures of {vision.image_size} pixels a side" if own else f"{vision.features} features"
    settings = "".join(f", {name} {value}" for name, value in connector.settings.items())
    rows = [
        ("vision encoder", f"{public_name(vision.weights)}, {seen}"),
        ("connector", f"{connector.kind}{settings}"),
        ("fusion", config.fusion.kind),
        ("language model", f"{public_name(language.weights)}, engine {language.engine}"),
        ("LoRA", f"rank {lora.rank} on {', '.join(lora.targets)}" if lora.rank else "none"),
        ("speech", f"{public_name(config.speech.weights)}, engine {config.speech.engine}"),
    ]
    return table(("part", config.name), rows)


def remote_parts(config: ModelConfig) -> str:
    """What is known of a model on a server."""
    rows = [
        ("base model, for words", config.language.weights),
        ("adapter, for pictures", config.adapter or "none"),
        ("speech", f"{public_name(config.speech.weights)}, engine {config.speech.engine}"),
    ]
    where = "A server has the model: this page holds no weights but those for speech."
    return f"{table(('part', config.name), rows)}\n\n{where}"


def scores(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """metrics.json -> a table of right answers beside the two baselines, and the commands that counted them."""
    if not metrics:
        command = (
            "python -m training.evaluate --adapter FOLDER --suite development --output development --save"
        )
        return f"This adapter was not evaluated. This does it:\n\n```\n{command}\n```"
    rows = []
    for name, entry in metrics.items():
        shown_as = _points if entry.get("measure") == "cider" else _percent
        shares = (shown_as(entry[key]) if entry.get(key) else "" for key in SHOWN)
        rows.append((name, f"{entry['questions']:,}", *shares))
        for named in (entry.get("by", {}).get(group, {}) for group in ("task", "kind")):
            if len(named) > 1:
                rows += [
                    (f"— {part}", f"{each['n']:,}", _percent(each["accuracy"]), "", "")
                    for part, each in named.items()
                ]
    shown = table(
        ("test", "questions", "right (95 % interval)", "blank picture", "most frequent answer"), rows
    )
    commands = "\n".join(dict.fromkeys(entry["command"] for entry in metrics.values()))
    return f"{shown}\n\n```\n{commands}\n```"


def _percent(share: Mapping[str, float]) -> str:
    return f"{share['share']:.1%} ({share['low']:.1%}–{share['high']:.1%})"


def _points(score: Mapping[str, float]) -> str:
    """CIDEr, which is no share: 100 times the mean."""
    return f"CIDEr {100 * score['share']:.1f} ({100 * score['low']:.1f}–{100 * score['high']:.1f})"


def training(trained: Mapping[str, Any]) -> str:
    """The stages, and how often each source was shown."""
    if trained.get("imported_from"):
        return f"It was imported from {trained['imported_from']}, and not trained here."
    sources = [
        (source["name"], f"{source['share']:g}", str(source["turns"]), ", ".join(source.get("tasks") or ()))
        for source in trained.get("sources", ())
    ]
    stages = [
        (name.removesuffix("_stage"), stage["train"], _steps(stage), f"{stage['connector_learning_rate']:g}",
         f"{stage['lora_learning_rate']:g}" if "lora" in stage["train"] else "")
        for name, stage in trained.items()
        if name.endswith("_stage") and not (name == "projector_stage" and trained.get("init_from"))
    ]  # fmt: skip
    if not sources or not stages:
        return "The folder does not say how it was trained."
    shown = table(("source", "times shown in an epoch", "questions each time", "only about"), sources)
    steps = table(("stage", "trains", "length", "connector's rate", "LoRA's rate"), stages)
    facts = [f"Batches of {trained['batch_size']} conversations, seed {trained['seed']}."]
    if "device" in trained:
        facts.append(f"Trained on {trained['device']}.")
    if trained.get("init_from"):
        facts.append(f"It goes on from the adapter {trained['init_from']}.")
    return "\n\n".join([*facts, steps, shown])


def _steps(stage: Mapping[str, Any]) -> str:
    return f"{stage['max_steps']} steps" if stage["max_steps"] > 0 else f"{stage['epochs']} epochs"


def _read_card(file: Path) -> str:
    """The data card without its own heading."""
    return _read_text(file).removeprefix("# Data card").lstrip()


def _read_text(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.is_file() else f"The folder has no {file.name}."
