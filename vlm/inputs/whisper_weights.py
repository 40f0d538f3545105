"""A Whisper model converted for CTranslate2 (`model.bin`) -> openai-whisper's own module, same weights.

So both engines run on one download, with no model hub. The two hold the same tensors under other names;
what differs: CTranslate2 stacks the rows of query, key and value into one matrix, and gives the keys a
bias, which Whisper has not (it is zero). Every key must fit: the weights are loaded with strict=True.

The file (CTranslate2's `ModelSpec._serialize`, little-endian): version u32, spec name, revision u32, the
number of variables u32, then for each its name, rank u8, dims u32 each, type u8, bytes u32, data; last the
aliases. A string is its length u16 with the closing zero counted, then the bytes. Nothing in it is
executed, and no size is believed before it is checked against the file.
"""

import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vlm.errors import UserError
from vlm.weights.resolve import REMEDY

if TYPE_CHECKING:
    import torch
    from whisper.model import Whisper

BINARY_VERSION = 6
SPEC_NAME = "WhisperSpec"
# CTranslate2's DataType, by number. 5 is bfloat16, which NumPy has not.
TYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)
_MAX_RANK = 8

INSTALL_OPENAI_WHISPER = (
    "pip install --no-deps openai-whisper==20250625 && "
    "pip install numba==0.68.1 tiktoken==0.14.0 more-itertools==11.2.1"
)

# CTranslate2's path inside a layer -> openai-whisper's names for the rows it stacks, in order.
_LINEARS = {
    "self_attention/linear_0": ("attn.query", "attn.key", "attn.value"),
    "self_attention/linear_1": ("attn.out",),
    "attention/linear_0": ("cross_attn.query",),
    "attention/linear_1": ("cross_attn.key", "cross_attn.value"),
    "attention/linear_2": ("cross_attn.out",),
    "ffn/linear_0": ("mlp.0",),
    "ffn/linear_1": ("mlp.2",),
}
_NORMS = {
    "self_attention/layer_norm": "attn_ln",
    "attention/layer_norm": "cross_attn_ln",
    "ffn/layer_norm": "mlp_ln",
}


class _Reader:
    """Walks over the bytes of a file; reading past the end is a ValueError that names the file."""

    def __init__(self, path: Path) -> None:
        if path.stat().st_size == 0:
            raise ValueError(f"{path} is empty. For the installed weights: {REMEDY}")
        # Copy-on-write: the pages are read as needed, and PyTorch wants memory that could be written to.
        self.data = np.memmap(path, dtype=np.uint8, mode="c")
        self.path = path
        self.at = 0

    def bytes(self, count: int) -> np.ndarray:
        if count > len(self.data) - self.at:
            raise ValueError(f"{self.path} ends too early. For the installed weights: {REMEDY}")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, code: str) -> int:
        return struct.unpack("<" + code, self.bytes(struct.calcsize(code)).tobytes())[0]

    def string(self) -> str:
        text = self.bytes(self.number("H")).tobytes()
        if not text.endswith(b"\0"):
            raise ValueError(f"{self.path} is not a CTranslate2 model. For the installed weights: {REMEDY}")
        return text[:-1].decode("utf-8")


def read_variables(path: Path) -> dict[str, np.ndarray]:
    """`model.bin` -> its arrays by CTranslate2's names, as views of the file; ValueError if it is none."""
    reader = _Reader(path)
    if reader.number("I") != BINARY_VERSION or reader.string() != SPEC_NAME:
        raise ValueError(f"{path} is not a Whisper model of CTranslate2's format version {BINARY_VERSION}.")
    reader.number("I")  # the spec's revision
    variables: dict[str, np.ndarray] = {}
    for _ in range(reader.number("I")):
        name = reader.string()
        variables[name] = _read_array(reader, name)
    for _ in range(2 * reader.number("I")):  # aliases: the output projection is the embedding, as in Whisper
        reader.string()
    if reader.at != len(reader.data):
        raise ValueError(f"{path} has {len(reader.data) - reader.at} bytes too many.")
    return variables


def _read_array(reader: _Reader, name: str) -> np.ndarray:
    rank = reader.number("B")
    shape = tuple(reader.number("I") for _ in range(min(rank, _MAX_RANK)))
    kind, size = reader.number("B"), reader.number("I")
    if rank > _MAX_RANK or kind >= len(TYPES):
        raise ValueError(f"{reader.path}: {name!r} has a type that cannot be read.")
    expected = np.dtype(TYPES[kind]).itemsize
    for dim in shape:  # Python's integers: a product of NumPy's could wrap around and look right
        expected *= dim
    if size != expected:
        raise ValueError(f"{reader.path}: {name!r} has {size} bytes where {shape} needs {expected}.")
    return np.frombuffer(reader.bytes(size), dtype=TYPES[kind]).reshape(shape)


def to_state_dict(variables: dict[str, np.ndarray]) -> dict[str, "torch.Tensor"]:
    """CTranslate2's arrays -> openai-whisper's state dict, still in the file's precision."""
    import torch

    arrays = {
        "decoder.token_embedding.weight": variables["decoder/embeddings/weight"],
        "encoder.positional_embedding": variables["encoder/position_encodings/encodings"],
        "decoder.positional_embedding": variables["decoder/position_encodings/encodings"],
    }
    for conv in ("conv1", "conv2"):
        for part in ("weight", "bias"):
            arrays[f"encoder.{conv}.{part}"] = variables[f"encoder/{conv}/{part}"]
    for side, last_norm in (("encoder", "ln_post"), ("decoder", "ln")):
        arrays |= _norm(variables, f"{side}/layer_norm", f"{side}.{last_norm}")
        for layer in range(_count_layers(variables, side)):
            arrays |= _layer(variables, f"{side}/layer_{layer}", f"{side}.blocks.{layer}")
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _layer(variables: dict[str, np.ndarray], source: str, target: str) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for path, name in _NORMS.items():
        if f"{source}/{path}/gamma" in variables:  # the encoder has no cross-attention
            arrays |= _norm(variables, f"{source}/{path}", f"{target}.{name}")
    for path, names in _LINEARS.items():
        if f"{source}/{path}/weight" not in variables:
            continue
        for part in ("weight", "bias"):
            stacked = variables[f"{source}/{path}/{part}"]  # [len(names) * D, ...]
            for name, rows in zip(names, np.split(stacked, len(names)), strict=True):
                if part == "bias" and name.endswith(".key"):
                    if rows.any():
                        raise ValueError(f"{source}/{path}: the keys have a bias, which Whisper has not.")
                    continue
                arrays[f"{target}.{name}.{part}"] = rows
    return arrays


def _norm(variables: dict[str, np.ndarray], source: str, target: str) -> dict[str, np.ndarray]:
    return {f"{target}.weight": variables[f"{source}/gamma"], f"{target}.bias": variables[f"{source}/beta"]}


def _count_layers(variables: dict[str, np.ndarray], side: str) -> int:
    return sum(
        name.startswith(f"{side}/layer_") and name.endswith("/ffn/linear_0/weight") for name in variables
    )


def load_openai_whisper(folder: Path) -> "Whisper":
    """The folder of a CTranslate2 conversion -> openai-whisper's module on the CPU, in float32."""
    try:
        from whisper.model import ModelDimensions, Whisper
    except ImportError as error:
        raise UserError(f"The engine openai-whisper is not installed: {INSTALL_OPENAI_WHISPER}") from error

    path = folder / "model.bin"
    variables = read_variables(path)
    try:
        audio_context, audio_width = variables["encoder/position_encodings/encodings"].shape
        text_context, text_width = variables["decoder/position_encodings/encodings"].shape
        dimensions = ModelDimensions(
            n_mels=variables["encoder/conv1/weight"].shape[1],
            n_audio_ctx=audio_context,
            n_audio_state=audio_width,
            n_audio_head=int(variables["encoder/num_heads"]),
            n_audio_layer=_count_layers(variables, "encoder"),
            n_vocab=variables["decoder/embeddings/weight"].shape[0],
            n_text_ctx=text_context,
            n_text_state=text_width,
            n_text_head=int(variables["decoder/num_heads"]),
            n_text_layer=_count_layers(variables, "decoder"),
        )
        state_dict = to_state_dict(variables)
    except KeyError as error:
        raise ValueError(f"{path} lacks {error}: it is not a float16 or float32 Whisper model.") from error
    model = Whisper(dimensions)
    model.load_state_dict(state_dict, strict=True)  # copies into float32
    return model.eval()
