"""A whole model with CLIP's eyes -> a folder that Transformers' LlavaForConditionalGeneration loads, as vLLM does."""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from vlm.export.llava_parts import LlavaParts, in_the_way, llava_parts, widened
from vlm.model.chat_templates import processor_template
from vlm.model.eyes import Eyes
from vlm.model.language import LanguageModel
from vlm.model.plain_lora import LORA_CONFIG, LORA_WEIGHTS
from vlm.model.vlm import VisionLanguageModel
from vlm.weights.cache import check_space
from vlm.weights.tensor_files import save_tensors

IMAGE_TOKEN = "<image>"
LORA_BELOW, LORA_WITHIN = "base_model.model.model.", "base_model.model.model.language_model."


def check_llava(eyes: Eyes, sizes: Any) -> LlavaParts:
    """The parts, with the connector as wide as LLaVA's. Raises UserError that names the part that LLaVA has otherwise.
    `sizes`: the language model's config."""
    parts = widened(llava_parts(eyes), sizes.hidden_size)
    if parts.norm:
        in_the_way('the connector\'s LayerNorm: its kind is "norm-mlp", and LLaVA\'s is "mlp"')
    return parts


def write_llava(model: VisionLanguageModel, folder: Path, lora: Path | None = None) -> None:
    """Fill `folder`. `model`: without a LoRA, or with one that is merged. `lora`: PEFT's folder, to be kept beside."""
    language = model.language
    parts = check_llava(model.eyes, language.model.config)
    tokenizer = copy.deepcopy(language.tokenizer)
    image_id = _image_token(tokenizer, language.model)
    config = _config(parts, language, image_id)
    llava = _assembled(parts, language, config)
    needed = sum(each.nbytes for each in llava.state_dict().values())
    check_space(folder, needed)
    llava.save_pretrained(folder)
    _processor(parts, tokenizer).save_pretrained(folder)
    if lora:
        _write_lora(lora, folder / "lora")


def _image_token(tokenizer: Any, language: nn.Module) -> int:
    """The id of the token that stands for a feature. Where it is new and the embeddings have no row for it, they get
    one that is the mean of all, so that it is never the likeliest."""
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
    image_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    if image_id >= language.get_input_embeddings().weight.shape[0]:
        language.resize_token_embeddings(image_id + 1, mean_resizing=False)
        for layer in {language.get_input_embeddings(), language.get_output_embeddings()}:
            layer.weight.data[image_id] = layer.weight.data[:image_id].float().mean(0).to(layer.weight)
    return image_id


def _config(parts: LlavaParts, language: LanguageModel, image_id: int) -> LlavaConfig:
    vision = parts.tower.config
    patches = (vision.image_size // vision.patch_size) ** 2
    return LlavaConfig(
        vision_config=vision.to_dict(),
        text_config=language.model.config.to_dict(),
        image_token_index=image_id,
        image_seq_length=patches + parts.class_token,
        projector_hidden_act="gelu",
        vision_feature_select_strategy="full" if parts.class_token else "default",
        vision_feature_layer=parts.layer,
        tie_word_embeddings=language.model.config.tie_word_embeddings,
    )


def _assembled(
    parts: LlavaParts, language: LanguageModel, config: LlavaConfig
) -> LlavaForConditionalGeneration:
    with torch.device("meta"):
        llava = LlavaForConditionalGeneration(config)
    dtype = language.dtype
    llava.model.vision_tower = parts.tower.to(dtype)
    llava.model.language_model = language.model.get_decoder()
    llava.lm_head = language.model.get_output_embeddings()
    projector = llava.model.multi_modal_projector
    for layer, weight, bias in zip(
        (projector.linear_1, projector.linear_2), parts.weights, parts.biases, strict=True
    ):
        layer.weight, layer.bias = _parameter(weight, dtype), _parameter(bias, dtype)
    llava.generation_config = language.model.generation_config
    return llava


def _parameter(value: Tensor, dtype: torch.dtype) -> nn.Parameter:
    return nn.Parameter(value.to(dtype).contiguous(), requires_grad=False)


def _processor(parts: LlavaParts, tokenizer: Any) -> LlavaProcessor:
    """It pads pictures to a square, as they are prepared here."""
    vision = parts.tower.config
    side = {"height": vision.image_size, "width": vision.image_size}
    images = LlavaImageProcessorPil(do_pad=True, size=side, crop_size=side)
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=vision.patch_size,
        vision_feature_select_strategy="full" if parts.class_token else "default",
        chat_template=processor_template(tokenizer.chat_template, IMAGE_TOKEN),
        image_token=IMAGE_TOKEN,
        num_additional_image_tokens=1,
    )


def _write_lora(lora: Path, folder: Path) -> None:
    """The LoRA for the whole LLaVA, whose language model is one level further down; its vision tower has layers of the
    same names, which are to stay as they are."""
    from safetensors.torch import load_file

    facts = json.loads((lora / LORA_CONFIG).read_text(encoding="utf-8"))
    weights = load_file(lora / LORA_WEIGHTS)
    renamed = {name.replace(LORA_BELOW, LORA_WITHIN, 1): value for name, value in weights.items()}
    targets = "|".join(sorted(facts["target_modules"]))
    facts["target_modules"] = rf".*language_model\..*\.({targets})"
    folder.mkdir()
    save_tensors(renamed, folder / LORA_WEIGHTS, {"format": "pt"})
    (folder / LORA_CONFIG).write_text(json.dumps(facts, indent=1), encoding="utf-8")
