"""The causal language model, its tokenizer and its LoRA adapter: embeddings in, streamed text out.

One copy of the base weights serves both sides: with the adapter on it reads pictures, with the adapter off it is the
base model, bit for bit. Which side is on is state of the model, so a lock is held while anything is generated.
"""

import importlib.util
import os
import queue
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, Cache, StoppingCriteria
from transformers.generation.streamers import BaseStreamer
from transformers.utils import logging as transformers_logging

from vlm.config import LanguageConfig, LoraConfig
from vlm.errors import UserError
from vlm.model.prompts import IGNORE, attention_of_blocks, end_of_turn
from vlm.weights.resolve import plain_weight_errors, resolve

warnings.filterwarnings(
    "ignore", message="`is_gradient_checkpointing` is deprecated"
)  # of PEFT, which asks for it

NAME_PROMPT = "A photo of a"
NAMES_AT_ONCE = 64
QUANTISATIONS = ("none", "nf4")
DTYPES = {"auto": None, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Generated(NamedTuple):
    """Text so far and the number of tokens it took."""

    text: str
    tokens: int


class Shared(NamedTuple):
    """Prompts that begin alike: the first `length` positions of row i are those of row `like[i]`, [B]."""

    length: int
    like: Tensor


class LanguageModel(nn.Module):
    """A causal LM with an optional LoRA adapter; `model` and `tokenizer` are Transformers' own."""

    def __init__(self, model: nn.Module, tokenizer: Any) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        known = _as_list(model.generation_config.eos_token_id or tokenizer.eos_token_id)
        # some checkpoints stop at the end of a text only, but it is the template that says where a turn ends
        self.end_ids: list[int] = list(dict.fromkeys(known + end_of_turn(tokenizer)))
        self.pad_id = _pad_id(tokenizer, self.end_ids)
        self.lock = threading.Lock()
        self.checkpointing = False
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
    def has_adapter(self) -> bool:
        return isinstance(self.model, PeftModel)

    def add_adapter(self, config: LoraConfig) -> None:
        """A fresh LoRA (arXiv:2106.09685); its B matrices are zero, so nothing changes until it is trained."""
        self.model = attach_lora(self.model, config)

    def load_adapter(self, folder: Path, trainable: bool = False) -> None:
        """The LoRA in PEFT's own format. In float32 while it trains, in the base model's precision to serve."""
        self.model = PeftModel.from_pretrained(
            self.model,
            str(folder),
            is_trainable=trainable,
            autocast_adapter_dtype=trainable,
            torch_device="cpu",  # from there it goes to where the model is; ZeroGPU has no GPU to read it to at start
        )
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

    def _in_own_dtype(self, norm: nn.Module, arguments: Any, output: Tensor) -> Tensor:
        """What a float32 norm gives: left so, it would make all that follows float32 in place of the model's dtype."""
        return output.to(self.dtype)

    def lora_parameters(self) -> list[nn.Parameter]:
        return [parameter for name, parameter in self.model.named_parameters() if "lora_" in name]

    def base(self) -> AbstractContextManager[Any]:
        """Within it the adapter is off."""
        return self.model.disable_adapter() if self.has_adapter else nullcontext()

    def embed(self, ids: Tensor) -> Tensor:
        """[B, T] -> [B, T, Dl]"""
        embedding = self.model.get_input_embeddings()
        return embedding(ids.to(embedding.weight.device))

    @property
    def causal(self) -> Any:
        """Transformers' own model, with the adapter's layers in it where there is one."""
        return self.model.get_base_model() if self.has_adapter else self.model

    @torch.inference_mode()
    def read_names(self, names: Sequence[str]) -> Tensor:
        """Names of things -> what the base model makes of each, [n, Dl] in float32: the mean over its tokens, in "A photo
        of a ...", of the states at a quarter of the depth. Deeper ones say more about the word to come."""
        before = self.tokenizer(NAME_PROMPT, add_special_tokens=False)["input_ids"]
        own = [
            self.tokenizer(f" {name}", add_special_tokens=False, split_special_tokens=True)["input_ids"]
            for name in names
        ]
        vectors: list[Tensor] = []
        with self.lock, self.base():
            for start in range(0, len(own), NAMES_AT_ONCE):
                some = own[start : start + NAMES_AT_ONCE]
                # nothing looks ahead, so that padding behind a name changes nothing
                rows = [torch.tensor(before + ids) for ids in some]
                ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.pad_id)
                states = self.causal.get_decoder()(
                    inputs_embeds=self.embed(ids), use_cache=False, output_hidden_states=True
                ).hidden_states
                layer = states[round(len(states) / 4)][:, len(before) :].float()
                vectors += [row[: len(each)].mean(0) for row, each in zip(layer, some, strict=True)]
        return torch.stack(vectors)

    def forward(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        count: Tensor | None = None,
        blocks: Tensor | None = None,
    ) -> Tensor:
        """Cross-entropy of the labels [B, T] given the embeddings [B, T, Dl]: its mean, or its sum over `count`.
        `blocks` as in `vlm.model.prompts.Batch`.

        Only the positions that are learned, about a quarter, go through the vocabulary's large matrix."""
        if self.checkpointing and not inputs_embeds.requires_grad:
            # else the first layer's LoRA would get no gradient
            inputs_embeds = inputs_embeds.detach().requires_grad_()
        positions = None
        if blocks is not None:
            attention_mask, positions = attention_of_blocks(attention_mask, blocks, inputs_embeds.dtype)
        hidden = self.causal.get_decoder()(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=positions,
            use_cache=False,
        ).last_hidden_state
        targets = labels[:, 1:]
        learned = targets != IGNORE
        head = self.causal.get_output_embeddings()
        logits = head(hidden[:, :-1][learned].to(head.weight.dtype))  # [learned, vocabulary]
        if count is None:
            return functional.cross_entropy(logits.float(), targets[learned])
        return functional.cross_entropy(logits.float(), targets[learned], reduction="sum") / count

    def generate(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor,
        adapter: bool,
        shared: Shared | None = None,
        **options: Any,
    ) -> Tensor:
        """New token ids only, [B, new], padded with `pad_id`. Blocks; `stream` is the one that people wait for."""
        with torch.inference_mode(), self.lock, nullcontext() if adapter else self.base():
            return self.model.generate(
                inputs_embeds=inputs_embeds,
                attention_mask=attention_mask,
                past_key_values=self._read_once(inputs_embeds, attention_mask, shared) if shared else None,
                eos_token_id=self.end_ids,
                pad_token_id=self.pad_id,
                # The last position as an index: of its own default, a slice, torch makes one product for each row on
                # a CPU, each with its own copy of the vocabulary's matrix, which takes as long as all the rest
                logits_to_keep=torch.tensor([-1], device=inputs_embeds.device),
                **options,
            )

    def _read_once(self, inputs_embeds: Tensor, attention_mask: Tensor, shared: Shared) -> Cache:
        """Keys and values of the shared positions, computed once for each beginning and given to each row [B]."""
        firsts, rows = shared.like.unique(return_inverse=True)
        mask = attention_mask[firsts, : shared.length]
        cache = self.causal.get_decoder()(
            inputs_embeds=inputs_embeds[firsts, : shared.length],
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            use_cache=True,
        ).past_key_values
        cache.batch_select_indices(rows)
        return cache

    def stream(
        self, inputs_embeds: Tensor, attention_mask: Tensor, adapter: bool, **options: Any
    ) -> Iterator[Generated]:
        """The answer to one prompt, [1, T, Dl], as it grows. Closing the iterator stops the model at its next token."""
        tokens = _TokenQueue()

        def work() -> None:
            try:
                self.generate(
                    inputs_embeds,
                    attention_mask,
                    adapter,
                    streamer=tokens,
                    stopping_criteria=[tokens],
                    **options,
                )
            except BaseException as error:  # handed to the reader, who is in another thread
                tokens.end(error)

        thread = threading.Thread(target=work, name="generate", daemon=True)
        thread.start()
        ids: list[int] = []
        try:
            while (token := tokens.get()) is not None:
                if token not in self.end_ids:
                    ids.append(token)
                text = self.tokenizer.decode(ids, skip_special_tokens=True)
                if not text.endswith("\ufffd"):  # half of a character that takes several tokens
                    yield Generated(text, len(ids))
        finally:
            tokens.stopped.set()
            thread.join()


class _TokenQueue(BaseStreamer, StoppingCriteria):
    """Carries tokens from the generating thread to the reader, and the reader's stop back."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self._items: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()

    def put(self, value: Tensor) -> None:
        for token in value.flatten().tolist():
            self._items.put(token)

    def end(self, error: BaseException | None = None) -> None:
        self._items.put(error)

    def get(self) -> int | None:
        item = self._items.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        return torch.full(
            (input_ids.shape[0],), self.stopped.is_set(), dtype=torch.bool, device=input_ids.device
        )


def _as_list(ids: int | Sequence[int]) -> list[int]:
    return [ids] if isinstance(ids, int) else list(ids)


def _pad_id(tokenizer: Any, end_ids: list[int]) -> int:
    """A padding token that does not end a turn: otherwise the model would never learn to stop."""
    for candidate in (tokenizer.pad_token_id, tokenizer.unk_token_id, 0):
        if candidate is not None and candidate not in end_ids:
            return candidate
    raise UserError("The tokenizer has no token for padding that differs from the end of a turn.")


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
    """Four-bit NormalFloat with double quantisation (QLoRA, arXiv:2305.14314), computed in `dtype`. The layer that
    gives the vocabulary's scores is left as it is; the projector is no part of the language model to begin with."""
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
    # Only what was generated is to be penalised: that is what is wanted, and no news to whoever asks a question
    warnings.filterwarnings("ignore", message="Passing `repetition_penalty` with `inputs_embeds`")
    folder = resolve(config.weights)
    dtype = choose_dtype(config.dtype, device)
    options = {"quantization_config": nf4(dtype), "device_map": {"": device}} if is_nf4(config) else {}
    with plain_weight_errors(config.weights):
        tokenizer = AutoTokenizer.from_pretrained(folder)  # first, being the quicker to fail
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **options)
    return LanguageModel(model if options else model.to(device), tokenizer)
