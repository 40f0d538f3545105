"""Tensors of torch -> the tensors of a GGUF file, one at a time: a large model is never in memory twice."""

from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from torch import Tensor

from vlm.errors import UserError
from vlm.weights.cache import check_space

KINDS = {torch.float32: Kind.F32, torch.float16: Kind.F16, torch.bfloat16: Kind.BF16}
FILE_TYPES = {
    Kind.F32: gguf.LlamaFileType.ALL_F32,
    Kind.F16: gguf.LlamaFileType.MOSTLY_F16,
    Kind.BF16: gguf.LlamaFileType.MOSTLY_BF16,
}
WIDTHS = {Kind.F32: 4, Kind.F16: 2, Kind.BF16: 2}


def write_tensors(writer: gguf.GGUFWriter, file: Path, tensors: Mapping[str, Tensor], kind: Kind) -> None:
    """Finish the file: all that `writer` was told, and the tensors. Those of one dimension are in float32, as
    llama.cpp wants them, the others of the `kind`. Raises OSError where there is no space."""
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    kinds = {name: Kind.F32 if tensor.ndim == 1 else kind for name, tensor in tensors.items()}
    sizes = {name: tensor.numel() * WIDTHS[kinds[name]] for name, tensor in tensors.items()}
    check_space(file, sum(sizes.values()))
    for name, tensor in tensors.items():
        writer.add_tensor_info(name, tensor.shape, np.dtype(np.float32), sizes[name], raw_dtype=kinds[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, tensor in tensors.items():
        writer.write_tensor_data(_values(name, tensor, kinds[name]))
    writer.close()


def _values(name: str, tensor: Tensor, kind: Kind) -> np.ndarray:
    values = gguf.quants.quantize(tensor.detach().float().contiguous().cpu().numpy(), kind)
    if kind == Kind.F16 and not np.isfinite(values).all():
        raise UserError(f"{name} has values that float16 cannot hold. Give --precision bfloat16.")
    return values
