"""The adapter folder: what training writes and the app reads. Safetensors and text only, never a pickle.

config.yaml             the resolved model config, and how it was trained
projector.safetensors   the connector
tags.safetensors        the tagger's head and its nouns, where the model has a tagger
fusion.safetensors      the fusion, where it has weights
lora/                   the LoRA in PEFT's own format, where there is one
language/               the language model in Transformers' own format, where it was trained whole
metrics.json            scores, with their baselines and commands, where it was evaluated
data.md, training.png   the data's card and a plot of the run; limits.md is written by hand
README.md               the model card that training/push.py makes for the hub
"""

import hashlib
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from vlm.config import ModelConfig
from vlm.config_reader import from_dict, read_yaml
from vlm.errors import UserError, plain_load_errors
from vlm.model.checkpoints import find_checkpoint, is_checkpoint
from vlm.model.fusion import fusion_settings
from vlm.model.plain_lora import LORA_CONFIG, LORA_WEIGHTS
from vlm.weights.cache import cache_folder, made_folder
from vlm.weights.hub import fetch, hub_name, is_hub_name, split_revision
from vlm.weights.tensor_files import PICKLES

ADAPTERS = Path(__file__).parents[2] / "assets" / "adapters"
CONNECTOR_FILE, FUSION_FILE, TAGS_FILE = "projector.safetensors", "fusion.safetensors", "tags.safetensors"
LANGUAGE = "language"
PLOT, DATA_CARD, LIMITS = "training.png", "data.md", "limits.md"
LORA = (f"lora/{LORA_CONFIG}", f"lora/{LORA_WEIGHTS}")
KINDS = ["config.yaml", "config.json", LORA_CONFIG]  # files that tell an adapter from a checkpoint
# On the hub
FILES = [
    "config.yaml",
    "*.safetensors",
    "lora/*.json",
    "language/*.json",
    "language/*.jinja",
    "language/*.txt",
    "language/*.model",
    "metrics.json",
    "*.md",
    PLOT,
]


def find_adapter(name: str) -> Path:
    """A folder, a shipped adapter's name, or user/name on the hub -> the folder, checked to hold an adapter. Of a LLaVA
    checkpoint in its place, the adapter folder in the cache that was made from it."""
    folder = Path(name) if os.path.isdir(name) else ADAPTERS / name
    shipped = ", ".join(sorted(path.name for path in ADAPTERS.glob("*/"))) or "none"
    if not os.path.isdir(folder) and is_hub_name(name):
        unknown = f"The adapter {name!r} is neither a folder here nor shipped ({shipped})"
        folder = fetch(name, KINDS, unknown)
        if os.path.isfile(folder / "config.yaml"):
            folder = fetch(name, FILES, unknown)
    if is_checkpoint(folder):
        return imported(name)
    if not os.path.isdir(folder):
        raise UserError(
            f"There is no adapter {name!r}: no folder here, and none of the shipped ones ({shipped}). Train one with "
            "python -m training.finetune."
        )
    missing = [part for part in _files_of(folder) if not os.path.isfile(folder / part)]
    if missing:
        raise UserError(
            f"{folder} is not an adapter folder: {', '.join(missing)} missing. Shipped adapters: {shipped}; "
            "or train one with python -m training.finetune."
        )
    foreign = [
        part for part in (FUSION_FILE, *LORA) if (folder / part).is_file() and part not in _files_of(folder)
    ]
    if foreign:
        raise UserError(
            f"{folder} holds {', '.join(foreign)}, and the model in its config.yaml has no such part. Copy the adapter "
            "again, as it was trained, or remove what is not its own."
        )
    refuse_pickles(folder)
    read_metrics(folder)
    return folder


def refuse_pickles(folder: Path) -> None:
    pickles = [path.name for path in folder.rglob("*") if path.suffix.lower() in PICKLES]
    if pickles:
        raise UserError(
            f"{folder} holds {', '.join(pickles)}: pickles can run code and are not loaded. Remove them."
        )


def _files_of(folder: Path) -> list[str]:
    """What an adapter folder must hold: a file of each part that its config.yaml has, so far as there is one."""
    parts = ["config.yaml", CONNECTOR_FILE]
    if not (folder / "config.yaml").is_file():
        return [*parts, *LORA]
    config = adapter_config(folder)
    if fusion_settings(config.fusion).has_weights:
        parts.append(FUSION_FILE)
    told = read_description(folder)
    if told.get("tagged"):
        parts.append(TAGS_FILE)
    if told.get("trained_whole"):
        parts.append(f"{LANGUAGE}/model.safetensors")
    return [*parts, *LORA] if config.lora.rank else parts


def imported(source: str) -> Path:
    """The adapter folder of a LLaVA checkpoint, made once and kept in the cache."""
    from vlm.model.llava_import import write_adapter  # and Transformers with it

    checkpoint = find_checkpoint(source)
    content = "".join(
        f"{each.name} {(known := each.stat()).st_size} {known.st_mtime_ns}"
        for each in sorted(checkpoint.iterdir())
    )
    identity = hashlib.sha256(f"{checkpoint.resolve()} {source} {content}".encode()).hexdigest()[:8]
    called = Path(split_revision(source)[0]).name
    return made_folder(
        cache_folder() / f"{called}-{identity}", lambda folder: write_adapter(source, checkpoint, folder)
    )


def adapter_name(folder: Path) -> str:
    """What people call it: user/name where it came from the hub, else the folder's name, or the run's where training called
    the folder `adapter`."""
    whole = Path(os.path.abspath(folder))
    own = whole.parent.name if whole.name == "adapter" else whole.name
    return hub_name(folder) or own or whole.name


def read_description(folder: Path) -> dict[str, Any]:
    """config.yaml: "model", the resolved model config, and "training", how it was trained. Not to be changed."""
    file = folder / "config.yaml"
    try:
        version = os.stat(file)
    except OSError:  # which reading it tells
        return _description(file, 0, 0)
    return _description(file, version.st_mtime_ns, version.st_size)


@lru_cache(maxsize=8)  # one start asks for it a dozen times, and YAML is slow to read
def _description(file: Path, modified: int, size: int) -> dict[str, Any]:
    told = read_yaml(file)
    known = [told.get("model"), told.get("training") or {}] if isinstance(told, dict) else [None]
    if not known[0] or not all(isinstance(each, dict) for each in known):
        raise UserError(
            f"{file} is damaged: it does not tell the model and how it was trained. Copy or train the adapter again."
        )
    return told


def adapter_config(folder: Path) -> ModelConfig:
    """The model that an adapter was trained for."""
    return from_dict(ModelConfig, read_description(folder)["model"], str(folder / "config.yaml"))


def knows_several_pictures(folder: Path) -> bool:
    """Whether it was trained on conversations about more than one picture."""
    training = read_description(folder).get("training") or {}
    return bool(training.get("several_pictures"))


def is_imported(folder: Path) -> bool:
    """Whether the adapter was made of a public checkpoint, and not trained here."""
    return "imported_from" in (read_description(folder).get("training") or {})


def fusion_file(folder: Path) -> Path | None:
    """The weights of an adapter's fusion; None where it has none."""
    return folder / FUSION_FILE if fusion_settings(adapter_config(folder).fusion).has_weights else None


def read_metrics(folder: Path) -> dict[str, dict[str, Any]]:
    """metrics.json: name of a test -> its scores; empty where the adapter was not evaluated."""
    file = folder / "metrics.json"
    if not file.is_file():
        return {}
    with plain_load_errors(
        f"{file} is damaged", "Copy it again or remove it; the adapter is then without scores."
    ):
        metrics = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(metrics, dict) or not all(map(_is_score, metrics.values())):
            raise ValueError("it holds no table of scores")
    return metrics


def _is_score(entry: Any) -> bool:
    """Whether it has what is shown of it: how many questions, the command, and shares with their intervals."""
    if not isinstance(entry, dict) or not isinstance(entry.get("by", {}), dict):
        return False
    named = list(entry.get("by", {}).values())
    if not all(isinstance(each, dict) for each in named):
        return False
    groups = [group for each in named for group in each.values()]
    if not all(isinstance(group, dict) and isinstance(group.get("n"), int) for group in groups):
        return False
    shares = [entry[name] for name in ("accuracy", "blank_picture", "question_only") if entry.get(name)]
    shares += [group.get("accuracy") for group in groups]
    told = isinstance(entry.get("questions"), int) and isinstance(entry.get("command"), str)
    return told and all(map(_is_share, shares))


def _is_share(share: Any) -> bool:
    bounds = [share.get(name) for name in ("share", "low", "high")] if isinstance(share, dict) else [None]
    return all(isinstance(bound, int | float) for bound in bounds)
