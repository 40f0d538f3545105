"""A public LLaVA checkpoint (checkpoints.py) -> an adapter folder (adapter.py) that names the checkpoint's parts.

Of Transformers' form the adapter folder gets the projector and no LoRA: the language model was trained as a whole, and is
read from the checkpoint. Of PEFT's it gets projector and LoRA, which are switched off to have the base model.
"""

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from vlm.config import ModelConfig
from vlm.config_reader import from_dict, to_dict
from vlm.errors import UserError, plain_load_errors
from vlm.model.chat_templates import VICUNA, text_template
from vlm.model.checkpoints import LORA_FILES, is_llava
from vlm.model.llava import PROJECTOR_PREFIX, checkpoint_tensors, llava_config
from vlm.model.plain_lora import LORA_CONFIG, LORA_WEIGHTS
from vlm.weights.hub import split_revision
from vlm.weights.tensor_files import save_tensors

STRATEGIES = {"default": "grid", "full": "patches"}  # Transformers' word -> vision.features
SELECTED = {"patch": "grid", "cls_patch": "patches"}  # the original code's
LORA_FACTS = (
    *("peft_type", "task_type", "r", "lora_alpha", "lora_dropout", "target_modules", "bias"),
    *("rank_pattern", "alpha_pattern", "use_rslora", "use_dora"),
)


def write_adapter(source: str, checkpoint: Path, folder: Path) -> None:
    """Fill the empty `folder`. `source` is what the checkpoint is called, `checkpoint` its files."""
    damaged = plain_load_errors(
        f"The checkpoint {source} could not be read", "Copy or download it again, with all of its files."
    )
    with damaged:
        write = _write_whole if is_llava(checkpoint) else _write_lora
        described, projector = write(source, checkpoint, folder)
        config = from_dict(ModelConfig, described, source)
        resolved = {"model": to_dict(config), "training": {"imported_from": source}}
        save_tensors(projector, folder / "projector.safetensors")
        (folder / "config.yaml").write_text(yaml.safe_dump(resolved, sort_keys=False), encoding="utf-8")


def _write_whole(source: str, checkpoint: Path, folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Transformers' form: the model's config, and the projector's weights."""
    config = llava_config(checkpoint)
    if not isinstance(config.vision_feature_layer, int) or config.projector_hidden_act != "gelu":
        raise UserError(
            f"The projector of {source} is not LLaVA-1.5's: it takes the layers {config.vision_feature_layer} and has "
            f"{config.projector_hidden_act!r} between its own. One layer and 'gelu' can be imported."
        )
    _check_preprocessing(source, checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    image_token = tokenizer.convert_ids_to_tokens(config.image_token_index) or "<image>"
    template = text_template(checkpoint, tokenizer, image_token)
    names = {f"{PROJECTOR_PREFIX}linear_{number}": f"layers.{2 * (number - 1)}" for number in (1, 2)}
    found = checkpoint_tensors(checkpoint, lambda name: PROJECTOR_PREFIX in name)
    projector = _projector(source, names, found)
    vision = _vision(source, STRATEGIES[config.vision_feature_select_strategy], config.vision_feature_layer)
    described = _described(source, vision, projector, source, template)
    described["lora"] = {"rank": 0, "targets": []}
    described["answers"]["clean_up"] = (
        False  # its answers are sentences, and there is no other model to clean them
    )
    return described, projector


def _write_lora(source: str, checkpoint: Path, folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """PEFT's form: the model's config, and the projector's weights; the LoRA is written."""
    original = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    facts = json.loads((checkpoint / LORA_CONFIG).read_text(encoding="utf-8"))
    tower, kind = original.get("mm_vision_tower"), original.get("mm_projector_type")
    selected = original.get("mm_vision_select_feature", "patch")
    if not tower or "clip" not in str(tower).lower():
        raise UserError(f"The vision tower of {source} is {tower!r}, and only CLIP's can be loaded here.")
    if kind != "mlp2x_gelu" or selected not in SELECTED or original.get("mm_use_im_start_end"):
        raise UserError(
            f"The projector of {source} is {kind!r} on {selected!r} features. LLaVA-1.5's 'mlp2x_gelu' on 'patch' "
            "or 'cls_patch', without tokens around the picture, can be imported."
        )
    names = {f"mm_projector.{place}": f"layers.{place}" for place in (0, 2)}
    projector = _projector(source, names, _unpickled(checkpoint / LORA_FILES[1]))
    weights = _lora_weights(checkpoint)
    (folder / "lora").mkdir()
    save_tensors(weights, folder / "lora" / LORA_WEIGHTS, {"format": "pt"})
    plain = {name: facts[name] for name in LORA_FACTS if name in facts} | {"inference_mode": True}
    (folder / "lora" / LORA_CONFIG).write_text(json.dumps(plain, indent=1), encoding="utf-8")
    vision = _vision(str(tower), SELECTED[selected], original.get("mm_vision_select_layer", -2))
    base = facts["base_model_name_or_path"]
    described = _described(source, vision, projector, base, _lora_template(checkpoint))
    described["lora"] = {"rank": facts["r"], "alpha": facts["lora_alpha"]}
    described["lora"] |= {"dropout": facts.get("lora_dropout", 0.0), "targets": facts["target_modules"]}
    return described, projector


def _vision(weights: str, features: str, layer: int) -> dict[str, Any]:
    return {"encoder": "clip", "weights": weights, "features": features, "layer": layer, "tags": 0}


def _described(
    source: str, vision: dict[str, Any], projector: dict[str, Tensor], language: str, template: str
) -> dict[str, Any]:
    return {
        "name": Path(split_revision(source)[0]).name,
        "vision": vision,
        "connector": {"kind": "mlp", "hidden": len(projector["layers.0.weight"])},
        "language": {"weights": language, "template": template, "quantisation": "nf4"},
        "answers": {"image_system": ""},
    }


def _projector(source: str, names: dict[str, str], found: dict[str, Tensor]) -> dict[str, Tensor]:
    """`names`: how the checkpoint calls a layer -> how the connector does. Features are not standardised:
    the mean is 0 and the deviation 1."""
    projector: dict[str, Tensor] = {}
    for theirs, ours in names.items():
        for part in ("weight", "bias"):
            matching = [value for name, value in found.items() if name.endswith(f"{theirs}.{part}")]
            if len(matching) != 1:
                raise UserError(
                    f"{source} has no {theirs}.{part}: its projector is not LLaVA-1.5's, or incomplete."
                )
            projector[f"{ours}.{part}"] = matching[0].contiguous()
    size = projector["layers.0.weight"].shape[1]
    return projector | {"normalise.mean": torch.zeros(size), "normalise.deviation": torch.ones(size)}


def _unpickled(file: Path) -> dict[str, Tensor]:
    """A pickle's tensors, and nothing but tensors."""
    try:
        found = torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:  # pickle's own, torch's, and whatever a crafted file provokes
        raise UserError(
            f"{file.name} is no plain file of weights: it is damaged, or would run code, and is not loaded."
        ) from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise UserError(f"{file.name} holds other things than weights, and is not loaded.")
    return found


def _lora_weights(checkpoint: Path) -> dict[str, Tensor]:
    plain, pickled = checkpoint / LORA_WEIGHTS, checkpoint / "adapter_model.bin"
    if not plain.is_file() and not pickled.is_file():
        raise ValueError("its adapter_model is missing")
    found = load_file(plain) if plain.is_file() else _unpickled(pickled)
    weights = {name: value.contiguous() for name, value in found.items() if ".lora_" in name}
    if not weights:
        raise ValueError("its adapter_model holds no LoRA")
    return weights


def _lora_template(checkpoint: Path) -> str:
    """The original code has its conversations in its source: LLaVA-1.5's is Vicuna's."""
    own = checkpoint / "chat_template.jinja"
    return own.read_text(encoding="utf-8") if own.is_file() else VICUNA


def _check_preprocessing(source: str, checkpoint: Path) -> None:
    """Pictures are normalised as CLIP was trained; a checkpoint that asks for other statistics is refused."""
    file = checkpoint / "preprocessor_config.json"
    if not file.is_file():
        return
    described = json.loads(file.read_text(encoding="utf-8"))
    for name, expected in (("image_mean", OPENAI_CLIP_MEAN), ("image_std", OPENAI_CLIP_STD)):
        given = described.get(name, expected)
        if any(abs(one - other) > 1e-3 for one, other in zip(given, expected, strict=True)):
            raise UserError(
                f"{source} normalises pictures with {name} {given}, and CLIP's {expected} is needed."
            )
