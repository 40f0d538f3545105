"""The adapter folder: what training writes and the app reads. Safetensors and text only, never a pickle.

config.yaml             the resolved model config, and how it was trained
projector.safetensors   the connector
tags.safetensors        the tagger's head and its nouns, where the model has a tagger
fusion.safetensors      the fusion, where it has weights
lora/                   the LoRA in PEFT's own format, where there is one
language/               the language model in Transformers' own format, where it was trained whole
metrics.json            scores, with their baselines and commands
data.md, training.png   the data's card and a plot of the run; limits.md is written by hand
README.md               the model card that training/push.py makes for the hub
"""

import hashlib
import json
import os
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from vlm.config import ModelConfig, PartConfig, from_dict, load_model_config, read_yaml, to_dict
from vlm.errors import UserError, plain_load_errors
from vlm.model.checkpoints import find_checkpoint, is_checkpoint
from vlm.model.connectors import connector_settings
from vlm.model.eyes import Eyes
from vlm.model.fusion import Fusion, fusion_settings
from vlm.model.plain_lora import check_plain
from vlm.weights.cache import cache_folder, made_folder
from vlm.weights.hub import fetch, hub_name, is_hub_name, split_revision
from vlm.weights.resolve import public_name
from vlm.weights.tensor_files import check_names, load_tensors, save_tensors
from vlm.whole_files import whole_folder

if TYPE_CHECKING:  # with it come Transformers' models and PEFT, which llama.cpp does without
    from torch import nn

    from vlm.model.language import LanguageModel
    from vlm.model.vlm import VisionLanguageModel

ADAPTERS = Path(__file__).parents[2] / "assets" / "adapters"
PROJECTOR, FUSION, TAGS = "projector.safetensors", "fusion.safetensors", "tags.safetensors"
LANGUAGE = "language"
LORA = ("lora/adapter_config.json", "lora/adapter_model.safetensors")
KINDS = ["config.yaml", "config.json", "adapter_config.json"]  # files that tell an adapter from a checkpoint
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
    "training.png",
]
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}


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
    missing = [part for part in _files_of(folder) if not os.path.isfile(folder / part)]
    if missing:
        raise UserError(
            f"{folder} is not an adapter folder: {', '.join(missing)} missing. Shipped adapters: {shipped}; "
            "or train one with python -m training.finetune."
        )
    foreign = [
        part for part in (FUSION, *LORA) if (folder / part).is_file() and part not in _files_of(folder)
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
    parts = ["config.yaml", PROJECTOR]
    if not (folder / "config.yaml").is_file():
        return [*parts, *LORA]
    config = adapter_config(folder)
    if fusion_settings(config.fusion).has_weights:
        parts.append(FUSION)
    if read_description(folder).get("trained_whole"):
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
    """What people call it: user/name where it came from the hub, else the folder's name."""
    return hub_name(folder) or folder.name


def read_description(folder: Path) -> dict[str, Any]:
    """config.yaml: "model", the resolved model config, and "training", how it was trained."""
    told = read_yaml(folder / "config.yaml")
    known = [told.get("model"), told.get("training") or {}] if isinstance(told, dict) else [None]
    if not known[0] or not all(isinstance(each, dict) for each in known):
        raise UserError(
            f"{folder / 'config.yaml'} is damaged: it does not tell the model and how it was trained. "
            "Copy or train the adapter again."
        )
    return told


def knows_several_pictures(folder: Path) -> bool:
    """Whether it was trained on conversations about more than one picture."""
    training = read_description(folder).get("training") or {}
    return bool(training.get("several_pictures"))


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


def adapter_config(folder: Path) -> ModelConfig:
    """The model that an adapter was trained for."""
    return from_dict(ModelConfig, read_description(folder)["model"], str(folder / "config.yaml"))


def with_all_settings(config: ModelConfig) -> ModelConfig:
    """The config with every setting of its parts, defaults among them: what an adapter was trained with must not change
    with a default. Raises UserError for unknown kinds and settings."""
    connector, fusion = config.connector, config.fusion
    return replace(
        config,
        connector=PartConfig(connector.kind, to_dict(connector_settings(connector))),
        fusion=PartConfig(fusion.kind, to_dict(fusion_settings(fusion))),
    )


def check_adapter(folder: Path, config: ModelConfig) -> None:
    """Refuse an adapter of another model with a sentence that names both."""
    trained = adapter_config(folder)
    if differing := _differing(trained, config):
        theirs, ours = differing
        raise UserError(
            f"The adapter {folder} does not fit the preset {config.name!r}{_sizes(trained, config)}: it was "
            f"trained with {theirs}, the preset has {ours}. Use the preset {trained.name!r} or another adapter."
        )


def _differing(trained: ModelConfig, config: ModelConfig) -> tuple[Any, Any] | None:
    """The first part in which the model of an adapter is another than a preset's, as each has it."""
    trained, config = with_all_settings(trained), with_all_settings(config)
    for part in ("vision", "connector", "fusion", "language"):
        theirs, ours = getattr(trained, part), getattr(config, part)
        if part == "language":  # how it is served may differ from training
            theirs = replace(ours, weights=theirs.weights, template=theirs.template)
        if part in ("vision", "language") and _called(theirs.weights) == _called(ours.weights):
            # a repository on the hub, and a folder of its name wherever it lies, hold the same
            theirs = replace(theirs, weights=ours.weights)
        if theirs != ours:
            return theirs, ours
    return None


def _called(weights: str) -> str:
    return Path(split_revision(weights)[0]).name


def _sizes(trained: ModelConfig, config: ModelConfig) -> str:
    """What the two projectors join, for a message; nothing where the sizes of a model are not to be had."""
    from vlm.model.sizes import describe

    try:
        theirs, ours = describe(trained).projector, describe(config).projector
    except UserError:
        return ""
    return f", its projector being {theirs} and the preset's {ours}"


def damaged(folder: Path) -> AbstractContextManager[None]:
    """Within it whatever is wrong with an adapter folder's files is a UserError."""
    return plain_load_errors(f"The adapter {folder} is damaged or incomplete", "Copy or train it again.")


def load_eyes(eyes: Eyes, folder: Path) -> None:
    """Put the projector of an adapter folder into the eyes, to serve."""
    with damaged(folder):
        file = folder / PROJECTOR
        eyes.connector.load_state_dict(load_tensors(file, eyes.connector.state_dict()))
        if eyes.tagger and (folder / TAGS).is_file():
            eyes.tagger.load(folder / TAGS)
    eyes.eval()


def load_fusion(fusion: Fusion, file: Path) -> None:
    """Put the weights of an adapter folder's `fusion_file` into the fusion."""
    with damaged(file.parent):
        fusion.load_state_dict(load_tensors(file, fusion.state_dict()))


def fusion_file(folder: Path) -> Path | None:
    """The weights of an adapter's fusion; None where it has none."""
    return folder / FUSION if fusion_settings(adapter_config(folder).fusion).has_weights else None


def lora_folder(folder: Path) -> Path | None:
    """The LoRA of an adapter folder, in PEFT's format, checked to be plain; None where the model has none."""
    if not adapter_config(folder).lora.rank:
        return None
    with damaged(folder):
        described = json.loads((folder / "lora" / "adapter_config.json").read_text(encoding="utf-8"))
        check_plain(described, adapter_config(folder).lora)
    return folder / "lora"


def load_adapter(model: "VisionLanguageModel", folder: Path, trainable: bool = False) -> None:
    """Put the parts of an adapter folder into a whole model in torch."""
    load_eyes(model.eyes, folder)
    if file := fusion_file(folder):
        load_fusion(model.fusion, file)
    load_language(model.language, folder)
    if lora := lora_folder(folder):
        with damaged(folder):
            model.language.load_adapter(lora, trainable)


def load_language(language: "LanguageModel", folder: Path) -> None:
    """The language model's own weights, where the adapter was trained with them."""
    file = folder / LANGUAGE / "model.safetensors"
    if not file.is_file():
        return
    with damaged(folder):
        missing, unknown = language.model.load_state_dict(load_tensors(file), strict=False)
        if unknown or set(missing) - {"lm_head.weight"}:  # which is the embeddings' again
            raise ValueError(f"its {LANGUAGE} folder is of another model")
    language.trained_whole = True


def with_own_language(config: ModelConfig, folder: Path) -> ModelConfig:
    """The config as the adapter is served: with the language model that it brings, if it does."""
    if not (folder / LANGUAGE).is_dir():
        return config
    return replace(config, language=replace(config.language, weights=str(folder / LANGUAGE)))


def load_trunk(connector: "nn.Module", folder: Path) -> None:
    """Let a fresh connector begin as the Q-Former of a run of training.heads; its last layer, into the language model's
    space, stays fresh."""
    file = folder / PROJECTOR
    if not file.is_file():
        raise UserError(
            f"{folder} has no {PROJECTOR}. Make it with python -m training.heads --preset q-former."
        )
    with damaged(folder):
        state = {name: each for name, each in load_tensors(file).items() if not name.startswith("outward.")}
        missing, unknown = connector.load_state_dict(state, strict=False)
        if unknown or {name for name in missing if not name.startswith("outward.")}:
            raise ValueError("its Q-Former has other settings than the preset's connector")


def restore_adapter(model: "VisionLanguageModel", folder: Path) -> None:
    """Copy what trains from a checkpoint's adapter folder into a model whose LoRA is in place already."""
    from peft import set_peft_model_state_dict

    with damaged(folder):
        file = folder / PROJECTOR
        model.connector.load_state_dict(load_tensors(file, model.connector.state_dict()))
        load_language(model.language, folder)
        if fusion := fusion_file(folder):
            model.fusion.load_state_dict(load_tensors(fusion, model.fusion.state_dict()))
        if not model.language.has_adapter:
            return
        lora = load_tensors(folder / "lora" / "adapter_model.safetensors")
        check_names(lora, model.language.lora_state(), "its LoRA")
        set_peft_model_state_dict(model.language.model, lora)


def save_adapter(
    model: "VisionLanguageModel",
    folder: Path,
    config: ModelConfig,
    training: dict[str, Any],
    metrics: dict[str, Any],
    dtype: torch.dtype = torch.float16,
    state: dict[str, torch.Tensor] | None = None,
) -> None:
    """float16 to ship, float32 in a checkpoint that training goes on from. `state` is the model's whole state where its
    parameters are divided among processes."""
    with whole_folder(folder) as working:
        _write(model, working, config, training, metrics, dtype, state)


def _write(
    model: "VisionLanguageModel",
    folder: Path,
    config: ModelConfig,
    training: dict[str, Any],
    metrics: dict[str, Any],
    dtype: torch.dtype,
    state: dict[str, torch.Tensor] | None,
) -> None:
    resolved: dict[str, Any] = {"model": to_dict(with_all_settings(config)), "training": training}
    if model.language.trained_whole:
        resolved["trained_whole"] = True  # so that a copy without the language model is noticed
    (folder / "config.yaml").write_text(yaml.safe_dump(resolved, sort_keys=False), encoding="utf-8")
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1), encoding="utf-8")
    state = model.state_dict() if state is None else state
    save_tensors(_converted(_below("eyes.connector.", state), dtype), folder / PROJECTOR)
    if fusion := _below("fusion.", state):
        save_tensors(_converted(fusion, dtype), folder / FUSION)
    if model.eyes.tagger:
        model.eyes.tagger.save(folder / TAGS)
    if model.language.has_adapter:
        _write_lora(model, folder, config, dtype, state)
    if model.language.trained_whole:
        _write_language(model, folder / LANGUAGE, dtype, state)


def _write_language(
    model: "VisionLanguageModel", folder: Path, dtype: torch.dtype, state: dict[str, torch.Tensor]
) -> None:
    weights = _converted(_below("language.model.", state), dtype)
    model.language.model.save_pretrained(folder, state_dict=weights)
    model.language.tokenizer.save_pretrained(folder)
    for written in folder.glob("*.safetensors"):  # which safetensors keeps from other accounts
        written.chmod((folder / "config.json").stat().st_mode)


def _write_lora(
    model: "VisionLanguageModel",
    folder: Path,
    config: ModelConfig,
    dtype: torch.dtype,
    state: dict[str, torch.Tensor],
) -> None:

    lora = model.language.model.peft_config["default"]
    (folder / "lora").mkdir()
    weights = model.language.lora_state(_below("language.model.", state))
    file = folder / "lora" / "adapter_model.safetensors"
    save_tensors(_converted(weights, dtype), file, {"format": "pt"})
    description = lora.to_dict() | {
        "base_model_name_or_path": public_name(config.language.weights),
        "inference_mode": True,
    }
    description["target_modules"] = sorted(lora.target_modules)
    plain = {key: value for key, value in description.items() if _is_plain(value)}
    (folder / "lora" / "adapter_config.json").write_text(
        json.dumps(plain, indent=1, sort_keys=True), encoding="utf-8"
    )


def _below(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state of the part that `prefix` names."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _converted(state: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in state.items()}


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True


def model_config_of(preset: str, adapter: str | None) -> tuple[ModelConfig, Path | None]:
    """The preset's config and the folder of its adapter (None: the preset has none yet, or a server has it). An imported
    adapter brings its whole model, and where that is another than the preset's, its own config."""
    config = load_model_config(preset)
    name = adapter or config.adapter
    if config.is_remote:
        return replace(config, adapter=name), None
    if name is None:
        return config, None
    folder = find_adapter(name)
    if is_imported(folder) and _differing(adapter_config(folder), config):
        return adapter_config(folder), folder
    check_adapter(folder, config)
    return with_own_language(config, folder), folder


def is_imported(folder: Path) -> bool:
    """Whether the adapter was made of a public checkpoint, and not trained here."""
    return "imported_from" in (read_description(folder).get("training") or {})
