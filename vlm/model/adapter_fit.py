"""Preset and adapter -> the config that is served: whether the two are of one model, part by part."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from vlm.config import ModelConfig, load_model_config, preset_names
from vlm.config_reader import PartConfig, to_dict
from vlm.errors import UserError
from vlm.model.adapter_folder import LANGUAGE, adapter_config, find_adapter, is_imported
from vlm.model.connectors import connector_settings
from vlm.model.fusion import fusion_settings
from vlm.weights.hub import split_revision


def model_config_of(preset: str | None, adapter: str | None) -> tuple[ModelConfig, Path | None]:
    """The preset's config and the folder of its adapter (None: the preset has none yet, or a server has it). An imported
    adapter brings its whole model, and where that is another than the preset's, its own config. Without a preset the
    adapter chooses (`served_by`)."""
    config = load_model_config(preset) if preset else served_by(find_adapter(adapter or ""))
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


def served_by(folder: Path) -> ModelConfig:
    """The shipped preset of the name that an adapter tells, where that is the model it was trained for and asks in the
    same words; else, as after training with a preset of one's own, the adapter's own config."""
    trained = adapter_config(folder)
    if trained.name in preset_names():
        config = load_model_config(trained.name)
        if trained.answers.image_system == config.answers.image_system and not _differing(trained, config):
            return config
    return trained


def with_own_language(config: ModelConfig, folder: Path) -> ModelConfig:
    """The config as the adapter is served: with the language model that it brings, if it does."""
    if not (folder / LANGUAGE).is_dir():
        return config
    return replace(config, language=replace(config.language, weights=str(folder / LANGUAGE)))


def check_adapter(folder: Path, config: ModelConfig) -> None:
    """Refuse an adapter of another model with a sentence that names both."""
    trained = adapter_config(folder)
    seen, seeing = trained.vision, config.vision
    if seen.encoder == "embeddings" != seeing.encoder and seen.tags == seeing.tags:
        # the encoder that made them may look at new pictures; the connector tells whether its sizes fit
        trained = replace(trained, vision=seeing)
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


def with_all_settings(config: ModelConfig) -> ModelConfig:
    """The config with every setting of its parts, defaults among them: what an adapter was trained with must not change
    with a default. Raises UserError for unknown kinds and settings."""
    connector, fusion = config.connector, config.fusion
    return replace(
        config,
        connector=PartConfig(connector.kind, to_dict(connector_settings(connector))),
        fusion=PartConfig(fusion.kind, to_dict(fusion_settings(fusion))),
    )
