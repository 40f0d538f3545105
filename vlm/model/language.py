"""The causal language model in torch, its tokenizer and its LoRA: what trains, and what the torch engine serves.

One copy of the base weights serves both sides: with the LoRA on it reads pictures, with the LoRA off it is the base
model, bit for bit.
"""

import importlib.util
import os
import warnings
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model, get_peft_model_state_dict
from peft.helpers import disable_input_dtype_casting
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers.utils import logging as transformers_logging

from vlm.config import LanguageConfig, LoraConfig
from vlm.errors import UserError
from vlm.model.llava import check_whole, language_options, other_parts_unmentioned
from vlm.model.plain_lora import LORA_WEIGHTS
from vlm.model.prompts import IGNORE, pad_id
from vlm.model.tokenizer import load_tokenizer
from vlm.weights.resolve import plain_weight_errors, resolve
from vlm.weights.tensor_files import check_names, load_tensors

warnings.filterwarnings(
    "ignore", message="`is_gradient_checkpointing` is deprecated"
)  # of PEFT, which asks for it

QUANTISATIONS = ("none", "nf4")
DTYPES = {"auto": None, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# Kinds of models that multiply the scores of their head, and the number's name in their configuration
SCALED = {
    "cohere": "logit_scale",
    "cohere2": "logit_scale",
    "cohere2_moe": "logit_scale",
    "hyperclovax": "logits_scaling",
    "falcon_h1": "lm_head_multiplier",
}
# Kinds of models that have a table of positions, and none beyond it
POSITIONED = {"gpt2", "gpt_neo", "gpt_bigcode", "gptj", "codegen", "opt", "biogpt", "openai-gpt", "ctrl"}


class LanguageModel(nn.Module):
    """A causal LM with an optional LoRA adapter; `model` and `tokenizer` are Transformers' own."""

    def __init__(self, model: nn.Module, tokenizer: Any) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.pad_id = pad_id(tokenizer)
        self.checkpointing = False
        # whether its own weights are others than the preset's, and are saved as well
        self.trained_whole = False
        self.requires_grad_(False).eval()

    @property
    def embedding_size(self) -> int:
        return self.model.config.hidden_size

    @property
    def dtype(self) -> torch.dtype:
        return self.model.get_input_embeddings().weight.dtype

    @property
    def quantised(self) -> bool:
        return bool(getattr(self.model, "is_loaded_in_4bit", False))

    @property
    def precision(self) -> str:
        """For people: "bfloat16", or "4-bit NF4, bfloat16" where the weights are stored in four bits."""
        return ("4-bit NF4, " if self.quantised else "") + str(self.dtype).removeprefix("torch.")

    @property
    def has_lora(self) -> bool:
        return isinstance(self.model, PeftModel)

    def add_lora(self, config: LoraConfig) -> None:
        """A fresh LoRA (arXiv:2106.09685); its B matrices are zero, so nothing changes until it is trained."""
        self.model = attach_lora(self.model, config)

    def load_lora(self, folder: Path, trainable: bool = False) -> None:
        """The LoRA in PEFT's own format. In float32 while it trains, in the base model's precision to serve."""
        self.model = PeftModel.from_pretrained(
            self.model,
            str(folder),
            is_trainable=trainable,
            autocast_adapter_dtype=trainable,
            torch_device="cpu",  # from there it goes to where the model is; ZeroGPU has no GPU to read it to at start
        )
        weights = load_tensors(folder / LORA_WEIGHTS)
        check_names(weights, self.lora_state(), "its LoRA")  # PEFT only warns of those that are missing
        if not trainable:
            for parameter in self.lora_parameters():
                parameter.data = parameter.data.to(self.dtype)
            self.model.eval()

    def prepare_training(self, gradient_checkpointing: bool) -> None:
        """Norms of a quantised model in float32, as QLoRA has them (arXiv:2305.14314); with gradient checkpointing
        the activations of a layer are computed again instead of kept: a third more work, much less memory."""
        if self.quantised:
            for module in self.model.modules():
                own = list(module.parameters(recurse=False))
                if own and all(each.ndim == 1 and each.is_floating_point() for each in own):
                    module.float().register_forward_hook(self._in_own_dtype)
                if hasattr(module, "support_avx512bf16_for_cpu"):  # a layer of bitsandbytes
                    # On a CPU it would, as soon as the model is evaluated, pack its weights in a way that computes in
                    # bfloat16 whatever was asked for, and that cannot be divided among processes
                    module.support_avx512bf16_for_cpu = False
        self.checkpointing = gradient_checkpointing
        if gradient_checkpointing:
            self.model.activation_checkpointing_enable({"use_reentrant": False})

    def check_trained_whole(self) -> None:
        """Raise UserError where the language model's own weights cannot be trained as they are."""
        if self.dtype is not torch.float32:
            raise UserError("To train the language model itself, set language.dtype to float32.")

    def inputs_as_they_are(self) -> AbstractContextManager[Any]:
        """Within it PEFT does not cast what goes into a LoRA."""
        return disable_input_dtype_casting(self.model)

    def _in_own_dtype(self, norm: nn.Module, arguments: Any, output: Tensor) -> Tensor:
        """What a float32 norm gives: left so, it would make all that follows float32 in place of the model's dtype."""
        return output.to(self.dtype)

    def merge_lora(self) -> None:
        """Add the LoRA to the weights that it changes, for good."""
        if self.has_lora:
            self.model = self.model.merge_and_unload()

    def lora_parameters(self) -> list[nn.Parameter]:
        return [parameter for name, parameter in self.model.named_parameters() if "lora_" in name]

    def lora_state(self, state: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """The LoRA's tensors by PEFT's names; `state` is the model's where its parameters are divided among processes."""
        # Embeddings never train; to find out, PEFT would ask the hub
        return get_peft_model_state_dict(self.model, state, save_embedding_layers=False)

    def apply_share(self, share: float) -> float:
        """Scale what the LoRA adds to the weights by `share`. Returns its new alpha, which is stored with it."""
        described = self.model.peft_config["default"]
        described.lora_alpha = round(described.lora_alpha * share, 6)
        for module in self.model.modules():
            if isinstance(module, LoraLayer):
                module.scale_layer(share)
        return described.lora_alpha

    def lora(self, on: bool) -> AbstractContextManager[Any]:
        """Within it the LoRA is on or off."""
        return nullcontext() if on or not self.has_lora else self.model.disable_adapter()

    def embed(self, ids: Tensor) -> Tensor:
        """[..., T] -> [..., T, Dl], on the device of the embeddings"""
        embedding = self.model.get_input_embeddings()
        return embedding(ids.to(embedding.weight.device))

    @property
    def causal(self) -> Any:
        """Transformers' own model, with the adapter's layers in it where there is one."""
        return self.model.get_base_model() if self.has_lora else self.model

    def scores(self, states: Tensor) -> Tensor:
        """The decoder's last hidden states [..., Dl] -> a score for each token [..., V], as the model's own forward gives
        them: some models scale or cap what their head gives."""
        head = self.causal.get_output_embeddings()
        return rescale(head(states.to(head.weight.dtype)), self.causal.config)

    def forward(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        count: Tensor | None = None,
    ) -> Tensor:
        """Cross-entropy of the labels [B, T] given the embeddings [B, T, Dl]: its mean, or its sum over `count`.

        Only the positions that are learned, about a quarter, go through the vocabulary's large matrix."""
        length, positions = inputs_embeds.shape[1], learned_positions(self.causal.config)
        if positions and length > positions:  # a GPU would stop at it with an assertion
            raise UserError(
                f"A conversation takes {length} positions with its pictures, and the language model has {positions}. Set a "
                "smaller max_tokens in the preset."
            )
        if self.checkpointing and not inputs_embeds.requires_grad:
            # else the first layer's LoRA would get no gradient
            inputs_embeds = inputs_embeds.detach().requires_grad_()
        hidden = self.causal.get_decoder()(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            use_cache=False,
        ).last_hidden_state
        targets = labels[:, 1:]
        learned = targets != IGNORE
        logits = self.scores(hidden[:, :-1][learned])  # [learned, vocabulary]
        if count is None:
            return functional.cross_entropy(logits.float(), targets[learned])
        return functional.cross_entropy(logits.float(), targets[learned], reduction="sum") / count


def learned_positions(config: Any) -> int | None:
    """How many positions a model has a table of, as GPT-2, beyond which it can read nothing; None where there is none."""
    return config.max_position_embeddings if config.model_type in POSITIONED else None


def rescale(scores: Tensor, config: Any) -> Tensor:
    """What the kinds of models that are known here do with the scores of their head, as Transformers has it in each
    model's own forward: Cohere scales them, Granite divides them (HyperCLOVA X multiplies by a number of that name), Gemma
    2 caps them."""
    if config.model_type in SCALED:
        scores = scores * getattr(config, SCALED[config.model_type])
    elif divisor := getattr(config, "logits_scaling", None):
        scores = scores / divisor
    if cap := getattr(config, "final_logit_softcapping", None):
        scores = (scores / cap).tanh() * cap
    return scores


def attach_lora(model: nn.Module, config: LoraConfig) -> PeftModel:
    peft_config = PeftLoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(config.targets),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, peft_config)


def choose_dtype(name: str, device: str) -> torch.dtype:
    """`auto`: bfloat16 where the processor multiplies it faster than float32, which older CPUs do not."""
    if name not in DTYPES:
        raise UserError(f"There is no dtype {name!r}. Valid: {', '.join(DTYPES)}.")
    fast = device != "cpu" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return DTYPES[name] or (torch.bfloat16 if fast else torch.float32)


def is_nf4(config: LanguageConfig) -> bool:
    if config.quantisation not in QUANTISATIONS:
        raise UserError(
            f"There is no quantisation {config.quantisation!r}. Valid: {', '.join(QUANTISATIONS)}."
        )
    return config.quantisation == "nf4"


def weights_are_divided() -> bool:
    """Whether accelerate was launched with FSDP or DeepSpeed, which leave each process a part of every weight."""
    return any(os.environ.get(f"ACCELERATE_USE_{name}") == "true" for name in ("FSDP", "DEEPSPEED"))


def nf4(dtype: torch.dtype) -> BitsAndBytesConfig:
    """Four-bit NormalFloat with double quantisation (QLoRA, arXiv:2305.14314), computed in `dtype`. `lm_head` stays
    unquantised."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            "4-bit weights need the package bitsandbytes. Install it with: pip install bitsandbytes"
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        # floating numbers alone can be divided, so that there the bits of the weights are kept as such
        bnb_4bit_quant_storage=dtype if weights_are_divided() else torch.uint8,
        llm_int8_skip_modules=["lm_head"],
    )


def build_language(config: LanguageConfig, device: str) -> LanguageModel:
    transformers_logging.disable_progress_bar()  # a second's work, and it would stand before every answer in the shell
    folder = resolve(config.weights)
    dtype = choose_dtype(config.dtype, device)
    options = {"quantization_config": nf4(dtype), "device_map": {"": device}} if is_nf4(config) else {}
    tokenizer = load_tokenizer(folder, config)  # first, being the quicker to fail
    with plain_weight_errors(config.weights), other_parts_unmentioned():
        model, found = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, output_loading_info=True, **options, **language_options(folder)
        )
        check_whole(found)
    return LanguageModel(model if is_nf4(config) else model.to(device), tokenizer)
