"""llama.cpp's C interface, declared for ctypes: the part that the engine uses; and what is loaded by it.

The functions are those of the shared library in the wheel `xllamacpp`. Structs have no version in C, so a library whose
defaults do not read back as those of the pinned build is refused before anything else is called.
"""

import ctypes
import importlib.metadata
import importlib.util
from ctypes import (
    POINTER,
    Structure,
    c_bool,
    c_char_p,
    c_float,
    c_int8,
    c_int32,
    c_size_t,
    c_uint32,
    c_void_p,
)
from functools import cache
from pathlib import Path
from typing import Any

from vlm.errors import UserError
from vlm.machine import usable_cores

PACKAGE, VERSION = "xllamacpp", "2026.10.11549"
INSTALL = f"Install it with: pip install {PACKAGE}=={VERSION}"
# A load mode: mapped, the file would stay in memory beside the repacked weights
LOAD_INTO_MEMORY = 0


class ModelParams(Structure):
    _fields_ = [
        ("devices", c_void_p),
        ("tensor_buft_overrides", c_void_p),
        ("n_gpu_layers", c_int32),
        ("split_mode", c_int32),
        ("load_mode", c_int32),
        ("lazy_mode", c_int32),
        ("main_gpu", c_int32),
        ("tensor_split", c_void_p),
        ("progress_callback", c_void_p),
        ("progress_callback_user_data", c_void_p),
        ("kv_overrides", c_void_p),
        ("vocab_only", c_bool),
        ("check_tensors", c_bool),
        ("use_extra_bufts", c_bool),
        ("no_host", c_bool),
        ("no_alloc", c_bool),
        ("load_mtp", c_bool),
    ]


class ContextParams(Structure):
    _fields_ = [
        ("n_ctx", c_uint32),
        ("n_batch", c_uint32),
        ("n_ubatch", c_uint32),
        ("n_seq_max", c_uint32),
        ("n_rs_seq", c_uint32),
        ("n_outputs_max", c_uint32),
        ("n_outputs_max_per_seq", c_uint32),
        ("n_threads", c_int32),
        ("n_threads_batch", c_int32),
        ("ctx_type", c_int32),
        ("rope_scaling_type", c_int32),
        ("pooling_type", c_int32),
        ("attention_type", c_int32),
        ("flash_attn_type", c_int32),
        ("rope_freq_base", c_float),
        ("rope_freq_scale", c_float),
        ("yarn", c_float * 4),
        ("yarn_orig_ctx", c_uint32),
        ("defrag_thold", c_float),
        ("cb_eval", c_void_p),
        ("cb_eval_user_data", c_void_p),
        ("type_k", c_int32),
        ("type_v", c_int32),
        ("abort_callback", c_void_p),
        ("abort_callback_data", c_void_p),
        ("unused", c_void_p),
        ("embeddings", c_bool),
        ("offload_kqv", c_bool),
        ("no_perf", c_bool),
        ("op_offload", c_bool),
        ("swa_full", c_bool),
        ("kv_unified", c_bool),
        ("samplers", c_void_p),
        ("n_samplers", c_size_t),
        ("ctx_other", c_void_p),
    ]


class Batch(Structure):
    """Either `token` or `embd` is given; `logits` says whose scores are wanted."""

    _fields_ = [
        ("n_tokens", c_int32),
        ("token", POINTER(c_int32)),
        ("embd", POINTER(c_float)),
        ("pos", POINTER(c_int32)),
        ("n_seq_id", POINTER(c_int32)),
        ("seq_id", POINTER(POINTER(c_int32))),
        ("logits", POINTER(c_int8)),
    ]


LogCallback = ctypes.CFUNCTYPE(None, ctypes.c_int, c_char_p, c_void_p)

# name -> (result, arguments)
FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "llama_backend_init": (None, []),
    "llama_log_set": (None, [LogCallback, c_void_p]),
    "llama_model_default_params": (ModelParams, []),
    "llama_context_default_params": (ContextParams, []),
    "llama_model_load_from_file": (c_void_p, [c_char_p, ModelParams]),
    "llama_model_free": (None, [c_void_p]),
    "llama_model_n_embd": (c_int32, [c_void_p]),
    "llama_model_get_vocab": (c_void_p, [c_void_p]),
    "llama_vocab_n_tokens": (c_int32, [c_void_p]),
    "llama_init_from_model": (c_void_p, [c_void_p, ContextParams]),
    "llama_free": (None, [c_void_p]),
    "llama_get_memory": (c_void_p, [c_void_p]),
    "llama_memory_seq_rm": (c_bool, [c_void_p, c_int32, c_int32, c_int32]),
    "llama_memory_seq_cp": (None, [c_void_p, c_int32, c_int32, c_int32, c_int32]),
    "llama_decode": (c_int32, [c_void_p, Batch]),
    "llama_get_logits_ith": (POINTER(c_float), [c_void_p, c_int32]),
    "llama_adapter_lora_init": (c_void_p, [c_void_p, c_char_p]),
    "llama_set_adapters_lora": (c_int32, [c_void_p, POINTER(c_void_p), c_size_t, POINTER(c_float)]),
}


class LibraryProblem(UserError):
    """llama.cpp cannot be used on this machine; the message says why."""


@cache
def load_library() -> Any:
    """The shared library with its functions declared. Raises LibraryProblem."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise LibraryProblem(f"llama.cpp is not installed. {INSTALL}")
    files = sorted(Path(found.submodule_search_locations[0]).glob(f"{PACKAGE}*.so")) or sorted(
        Path(found.submodule_search_locations[0]).glob(f"{PACKAGE}*.pyd")
    )
    version = importlib.metadata.version(PACKAGE)
    if version != VERSION or not files:
        raise LibraryProblem(
            f"llama.cpp is installed as {PACKAGE} {version}, and {VERSION} is needed. {INSTALL}"
        )
    try:
        library = ctypes.CDLL(str(files[0]))
        for name, (result, arguments) in FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise LibraryProblem(f"llama.cpp does not load on this machine ({error})") from error
    check_defaults(library)
    library.llama_log_set(_keep_silent, None)
    library.llama_backend_init()
    return library


def check_defaults(library: Any) -> None:
    """Refuse a library whose structs are laid out otherwise than declared here."""
    context, model = library.llama_context_default_params(), library.llama_model_default_params()
    read = (
        context.n_ctx,
        context.n_batch,
        context.n_ubatch,
        context.n_seq_max,
        context.type_k,
        context.type_v,
    )
    switches = (context.embeddings, context.offload_kqv, context.kv_unified, context.ctx_other)
    loading = (model.n_gpu_layers, model.vocab_only, model.use_extra_bufts)
    expected = ((512, 2048, 512, 1, 1, 1), (False, True, False, None), (-1, False, True))
    if (read, switches, loading) != expected:
        raise LibraryProblem(f"llama.cpp has other defaults than version {VERSION}. {INSTALL}")


@LogCallback
def _keep_silent(level: int, text: bytes, data: Any) -> None:
    """llama.cpp's own log is for its developers; what goes wrong is told by the engine."""


def load_model(library: Any, weights: Path, cells: int, slots: int, rows: int) -> tuple[int, int]:
    """The model of a GGUF file, and a context with a cache of `cells` positions for so many `slots`, that decodes at most
    `rows` at once. Raises UserError."""
    how = library.llama_model_default_params()
    how.n_gpu_layers, how.load_mode = 0, LOAD_INTO_MEMORY
    model = library.llama_model_load_from_file(str(weights).encode(), how)
    if not model:
        raise UserError(
            f"llama.cpp could not load {weights}. Where the file is damaged, remove it; it is fetched again."
        )
    sizes = library.llama_context_default_params()
    sizes.n_ctx, sizes.n_seq_max, sizes.kv_unified = cells, slots, True
    sizes.n_batch = sizes.n_ubatch = rows
    sizes.n_outputs_max = sizes.n_seq_max
    sizes.n_threads = sizes.n_threads_batch = usable_cores()
    context = library.llama_init_from_model(model, sizes)
    if not context:
        library.llama_model_free(model)
        raise UserError(
            f"There is too little memory for a cache of {cells} tokens. Lower language.cache_tokens in the preset."
        )
    return model, context


def load_lora(library: Any, model: int, lora: Path) -> int:
    """The LoRA of a GGUF file, for this model. Raises UserError."""
    loaded = library.llama_adapter_lora_init(model, str(lora).encode())
    if not loaded:
        raise UserError(
            f"llama.cpp could not load the adapter {lora}: it does not fit this language model, or is damaged. "
            "Remove the file; it is made again from the adapter's folder."
        )
    return loaded
