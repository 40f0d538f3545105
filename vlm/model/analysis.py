"""A file of encoder weights, projection weights or embeddings -> what it holds, and the preset that integrates it.

Only shapes and numbers are read; nothing is run. What a name such as `embeddings.position_embedding.weight` means is a
guess by its shape, and is told as such.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from vlm.config import ModelConfig, VisionConfig
from vlm.config_reader import PartConfig, read_yaml
from vlm.errors import UserError, plain_load_errors
from vlm.model.connectors import token_count
from vlm.model.embeddings import conversion, read_embeddings, unnamed
from vlm.model.sizes import SHIPPED, architecture, describe
from vlm.model.vision_transformer import outline_transformer, vision_half
from vlm.weights.tensor_files import PICKLES

FEW = 64  # visual tokens that a small language model reads quickly
SHOWN = 12  # tensors that are listed
PROJECTION = 8  # tensors at most of a file of projection weights


@dataclass(frozen=True)
class Held:
    """One tensor: its name, shape and type, and the norms of its rows: least, mean, most."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    norms: tuple[float, float, float]


@dataclass(frozen=True)
class Analysis:
    """`features` and `size`: how many features a picture has, and of how many channels. `made_for`: the hidden size that a
    projection leads to, 0 for what is none."""

    kind: str  # "encoder weights" | "projection weights" | "embeddings"
    tensors: list[Held]
    features: int
    size: int
    made_for: int
    vision: VisionConfig | None  # None for a projection, which is behind another's encoder
    warning: str = ""  # a sentence about what is lacking


def analyse(path: Path) -> Analysis:
    """A safetensors, parquet or npy file, or the folder of an encoder. Raises UserError for what is none of these."""
    if path.is_dir():
        return _encoder(path)
    if path.suffix.lower() in PICKLES:
        raise UserError(
            f"{path.name} is a pickle, which can run code, and is not loaded. Convert embeddings where you trust them: "
            f"{conversion(path)}; and weights with save_pretrained, which writes safetensors."
        )
    if path.suffix.lower() != ".safetensors" or not path.is_file() or _are_embeddings(path):
        return _embeddings(path)
    tensors = list(_tensors([path]))
    steps = [held.shape for held in tensors if len(held.shape) == 2]
    if len(tensors) <= PROJECTION and steps and all(len(held.shape) <= 2 for held in tensors):
        inward, outward = steps[0][1], steps[-1][0]
        return Analysis("projection weights", tensors, 0, inward, outward, None)
    return _encoder(path.parent)


def _embeddings(path: Path) -> Analysis:
    known = read_embeddings(path)
    _, count, size = known.features.shape
    vision = VisionConfig(encoder="embeddings", weights=str(path), tags=0)
    warning = "" if known.pictures else unnamed(path)
    return Analysis("embeddings", [_held("embeddings", known.features)], count, size, 0, vision, warning)


def _encoder(folder: Path) -> Analysis:
    files = sorted(folder.glob("*.safetensors"))
    if not files or not (folder / "config.json").is_file():
        raise UserError(
            f"{folder} holds no encoder: it needs config.json and weights in safetensors, as save_pretrained writes them."
        )
    sizes, _ = architecture(str(folder))
    vision_half(sizes, str(folder))
    vision = VisionConfig(encoder="transformers", weights=str(folder), features="patches", layer=-1, tags=0)
    outline = outline_transformer(sizes, str(folder), "grid", -1)
    if math.isqrt(outline.feature_count) ** 2 == outline.feature_count:
        vision = replace(vision, features="grid")
    count = outline.feature_count
    return Analysis("encoder weights", list(_tensors(files)), count, outline.feature_size, 0, vision)


def _are_embeddings(path: Path) -> bool:
    """Whether the tensors are alike, as embeddings are and weights are not, but for a few that are odd; or their pictures
    are named."""
    with (
        plain_load_errors(f"{path.name} could not be read", "Write it again."),
        safe_open(path, "pt") as stored,
    ):
        names = list(stored.keys())
        shapes = Counter(tuple(stored.get_slice(name).get_shape()) for name in names)
        if "pictures" in (stored.metadata() or {}):
            return True
        if not names or any(name.endswith((".weight", ".bias")) for name in names):
            return False
        ranks = {len(shape) for shape in shapes}
        return ranks == {1} or (len(ranks) == 1 and 2 * max(shapes.values()) > len(names))


def _tensors(files: Sequence[Path]) -> Iterator[Held]:
    for file in files:
        with (
            plain_load_errors(f"{file.name} could not be read", "Write it again."),
            safe_open(file, "pt") as stored,
        ):
            for name in list(stored.keys()):
                yield _held(name, stored.get_tensor(name))


def _held(name: str, tensor: Tensor) -> Held:
    rows = tensor.float().reshape(-1, tensor.shape[-1] if tensor.ndim else 1)
    norms = rows.norm(dim=1)
    if not norms.isfinite().all():
        raise UserError(f"{name} holds NaN or infinity. Write the file again without it.")
    told = (float(norms.min()), float(norms.mean()), float(norms.max()))
    return Held(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), told)


def hidden_sizes() -> dict[str, int]:
    """The language models whose sizes are shipped -> the width of their embeddings."""
    shipped = read_yaml(SHIPPED)
    return {name: sizes["hidden_size"] for name, sizes in shipped.items() if "vocab_size" in sizes}


def connector_for(found: Analysis) -> PartConfig:
    """A first choice: one token a feature while they are few, else a grid merged to a quarter, else learned queries."""
    if found.made_for:
        matrices = [held.shape for held in found.tensors if len(held.shape) == 2]
        return PartConfig("linear") if len(matrices) == 1 else PartConfig("mlp", {"hidden": matrices[0][0]})
    hidden = min(4096, max(256, found.size))
    side = math.isqrt(found.features)
    if found.features > FEW and side**2 == found.features and side % 2 == 0:
        return PartConfig("mlp", {"hidden": hidden, "merge": 2})
    if found.features > FEW:
        heads = next(count for count in (8, 4, 2, 1) if found.size % count == 0)
        return PartConfig("attention-pool", {"queries": 32, "heads": heads, "hidden": hidden})
    return PartConfig("mlp", {"hidden": hidden})


def plan(found: Analysis, base: ModelConfig, name: str) -> ModelConfig:
    """The preset `base` with what was found in place of its encoder, and a connector that fits it."""
    vision = found.vision or base.vision
    config = replace(base, name=name, vision=vision, connector=connector_for(found), adapter=None)
    if found.features:
        token_count(config.connector, found.features)
    return config


def misfit(found: Analysis, config: ModelConfig) -> str:
    """Why the preset of the plan would not hold the projection that was found; empty where it does."""
    if not found.made_for:
        return ""
    inward, *_, outward = describe(config).widths
    if outward != found.made_for:
        fitting = [name for name, size in hidden_sizes().items() if size == found.made_for]
        wide = f"{found.made_for} wide, such as {fitting[0]}" if fitting else f"{found.made_for} wide"
        return (
            f"No preset is written: the projection leads to {found.made_for}, and {config.language.weights} is {outward} "
            f"wide. Give a --preset whose language model is {wide}."
        )
    if inward != found.size:
        return (
            f"No preset is written: the projection takes features of {found.size}, and {config.vision.weights} gives "
            f"{inward}. Give a --preset whose encoder gives {found.size}."
        )
    return ""


def report(found: Analysis) -> str:
    """For people: what the file holds, and what lies between it and each language model."""
    dtypes = dict.fromkeys(held.dtype for held in found.tensors)
    of_picture = f"; a picture: {found.features} x {found.size}" if found.features else ""
    lines = [
        f"{found.kind}, {len(found.tensors)} tensors of {', '.join(dtypes)}{of_picture}",
        *(_line(held) for held in found.tensors[:SHOWN]),
    ]
    if len(found.tensors) > SHOWN:
        lines.append(f"  and {len(found.tensors) - SHOWN} more")
    if found.warning:
        lines.append(found.warning)
    lines.append("language models, and the width of their embeddings:")
    lines += [f"  {size:>5}  {name}: {_between(found, size)}" for name, size in hidden_sizes().items()]
    return "\n".join(lines)


def _between(found: Analysis, hidden_size: int) -> str:
    """What lies between what was found and a language model."""
    if found.made_for:
        return "the projection fits" if found.made_for == hidden_size else "the projection does not fit"
    if found.size == hidden_size:
        return "of the same width"
    return f"a connector from {found.size} to {hidden_size}"


def _line(held: Held) -> str:
    least, mean, most = held.norms
    shape = " x ".join(map(str, held.shape)) or "1"
    return f"  {held.name}  {shape}  {held.dtype}  norms {least:.3g} to {most:.3g}, mean {mean:.3g}"
