"""Embeddings of pictures that were computed elsewhere, in place of an encoder: files of numbers alone.

.safetensors  one tensor a picture, named by the picture; or one of all, and their names as "pictures" in the metadata
.parquet      columns `picture`, its name, and `embedding`, a list of numbers or a list of such lists
.npy          [M, D] or [M, N, D]

Where all are one array without names, a .txt of the same name beside it has a picture's name a line. That name is the
SHA-256 of its bytes in the parquet files of the data, their column `image_id`. Pickles are refused: they can run code.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from vlm.errors import UserError, plain_load_errors
from vlm.model.encoder import Encoder
from vlm.weights.tensor_files import PICKLES

TORCH = (".pt", ".pth", ".bin", ".ckpt")  # of those, what torch.save writes
COLUMNS = ("picture", "embedding")  # of a parquet file


def conversion(file: Path) -> str:
    """What to type for a pickle: of a dictionary of names and vectors, or of one array, it makes safetensors beside it."""
    if file.suffix.lower() in TORCH:
        load = f"import torch; e = torch.load('{file}', map_location='cpu', weights_only=True)"
        whole, each, saved = (
            "torch.stack(tuple(e))",
            "torch.as_tensor(v).float().contiguous().clone()",
            "torch",
        )
    else:
        package = "joblib" if file.suffix.lower() == ".joblib" else "pickle"
        load = f"import numpy, {package}; e = {package}.load(open('{file}', 'rb'))"
        whole, each, saved = "e", "numpy.array(v, dtype='float32', order='C')", "numpy"
    named = (
        f"{{str(n): {each} for n, v in (e if isinstance(e, dict) else {{'embeddings': {whole}}}).items()}}"
    )
    save = f"save_file({named}, '{file.with_suffix('.safetensors')}')"
    return f'python -c "from safetensors.{saved} import save_file; {load}; {save}"'


def unnamed(file: Path) -> str:
    """What is wrong with embeddings that name no pictures."""
    return (
        f"{file.name} names no pictures, so that its embeddings cannot be matched with them. Put "
        f"{file.with_suffix('.txt').name} beside it, with a picture's name a line, in their order."
    )


class StoredEmbeddings(NamedTuple):
    """`pictures`: the names in order, empty where the file has none. `features` [M, N, D] as they were stored."""

    pictures: list[str]
    features: Tensor


class Precomputed(Encoder):
    """What stands in the encoder's place: it knows the pictures of its file, and cannot look at another."""

    def __init__(self, file: Path, known: StoredEmbeddings) -> None:
        super().__init__()
        self.file, self.known = file, known
        self.feature_count, self.feature_size = known.features.shape[1:]

    def preprocess(self, image: Image.Image) -> Tensor:
        raise UserError(
            f"The preset reads the embeddings in {self.file.name}, and there is no encoder for another picture. To look at "
            "new pictures, serve a copy of the preset whose vision.encoder and vision.weights are those that made them."
        )


def read_embeddings(file: Path) -> StoredEmbeddings:
    """Raises UserError for a pickle, another format, names that do not match, other lengths, no fractions, or NaN."""
    suffix = file.suffix.lower()
    if suffix in PICKLES:
        raise UserError(
            f"{file.name} is a pickle, which can run code, and is not loaded. Where you trust it, this makes "
            f"{file.with_suffix('.safetensors').name} of it: {conversion(file)}"
        )
    if suffix not in READERS:
        raise UserError(f"{file.name} is no file of embeddings. Valid: {', '.join(READERS)}.")
    if not file.is_file():
        raise UserError(f"The embeddings {file} are missing. Check their path.")
    with plain_load_errors(f"{file.name} could not be read as embeddings", "Write it again."):
        names, features = READERS[suffix](file)
        _check(names, features)
    return StoredEmbeddings(names, features.unsqueeze(1) if features.ndim == 2 else features)


def _check(names: Sequence[str], features: Tensor) -> None:
    if features.ndim not in (2, 3) or not features.numel():
        raise ValueError(f"it has the shape {list(features.shape)} and not [M, D] or [M, N, D]")
    if not features.is_floating_point():
        raise ValueError(f"it holds {str(features.dtype).removeprefix('torch.')} and no fractions")
    if names and len(names) != len(features):
        raise ValueError(f"it names {len(names)} pictures and has {len(features)} embeddings")
    if not features.isfinite().all():
        place = int((~features.isfinite()).flatten(1).any(1).nonzero()[0])
        raise ValueError(f"the embedding of {names[place] if names else place} holds NaN or infinity")


def _stacked(names: list[str], each: list[Tensor]) -> tuple[list[str], Tensor]:
    odd = next((place for place, one in enumerate(each) if one.shape != each[0].shape), None)
    if odd is not None:
        raise ValueError(
            f"the embedding of {names[odd]} has the shape {list(each[odd].shape)}, and that of {names[0]} "
            f"{list(each[0].shape)}"
        )
    return names, torch.stack(each)


def _safetensors(file: Path) -> tuple[list[str], Tensor]:
    with safe_open(file, framework="pt") as stored:
        names = list(stored.keys())
        pictures = (stored.metadata() or {}).get("pictures")
        if len(names) == 1 and (pictures or stored.get_slice(names[0]).get_shape()[0] > 1):
            return json.loads(pictures) if pictures else _names_beside(file), stored.get_tensor(names[0])
        return _stacked(names, [stored.get_tensor(name) for name in names])


def _parquet(file: Path) -> tuple[list[str], Tensor]:
    from pyarrow import parquet  # half a second

    there = parquet.read_schema(file).names
    if missing := [name for name in COLUMNS if name not in there]:
        raise ValueError(
            f"it has no column {', '.join(missing)}; it needs {' and '.join(COLUMNS)}, and has {', '.join(there)}"
        )
    columns = parquet.read_table(file, columns=list(COLUMNS)).to_pydict()
    each = [torch.from_numpy(np.asarray(one, dtype=np.float32)) for one in columns["embedding"]]
    return _stacked(columns["picture"], each)


def _npy(file: Path) -> tuple[list[str], Tensor]:
    return _names_beside(file), torch.from_numpy(np.load(file, allow_pickle=False))


def _names_beside(file: Path) -> list[str]:
    names = file.with_suffix(".txt")
    lines = names.read_text(encoding="utf-8").splitlines() if names.is_file() else []
    return [line.strip() for line in lines if line.strip()]


READERS: dict[str, Callable[[Path], tuple[list[str], Tensor]]] = {
    ".safetensors": _safetensors,
    ".parquet": _parquet,
    ".npy": _npy,
}


def load_precomputed(weights: str) -> Precomputed:
    file = Path(weights).expanduser()
    return Precomputed(file, read_embeddings(file))
