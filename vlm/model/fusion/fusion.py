"""What every fusion is: the way of the visual tokens into the language model."""

from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from vlm.model.prompts import Batch


class Arranged(NamedTuple):
    """What the language model reads of a batch: embeddings [B, T, Dl], and which are there and to be learned, [B, T]."""

    embeds: Tensor
    attention_mask: Tensor
    labels: Tensor


class Fusion(nn.Module):
    """Training calls `arrange`. An engine, which reads a prompt in pieces, calls `view` once for its pictures and `fuse`
    for each piece; after `rest` the language model is the text model again."""

    beside = False  # whether visual tokens stay beside the prompt, and take no positions in it

    def arrange(self, embeds: Tensor, batch: Batch, visual_tokens: Tensor | None) -> Arranged:
        """Text embeddings [B, T, Dl] and the visual tokens of all pictures [M, K, Dl] in reading order."""
        raise NotImplementedError

    def view(self, pictures: Tensor) -> Any:
        """The pictures of each row [B, P, K, Dl] -> what `fuse` needs of them."""
        raise NotImplementedError

    def fuse(self, embeds: Tensor, seen: Tensor, view: Any) -> Tensor:
        """The embeddings of a piece [B, T, Dl], each with how many of its row's pictures stand before it [B, T] -> those
        that the language model is to read. `view` is None where no picture is to be seen."""
        raise NotImplementedError

    def rest(self) -> None:
        """Let go of what was seen."""

    def attach(self, layers: nn.ModuleList) -> None:
        """Put the fusion's own blocks, if it has any, between the language model's layers."""


class FusionSettings(Protocol):
    """A fusion's own dataclass: the keys that its `fusion:` mapping may have beside `kind`, with their defaults."""

    @property
    def has_weights(self) -> bool:
        """Whether it learns, so that an adapter folder holds fusion.safetensors."""
        ...

    @property
    def told(self) -> str:
        """Where the picture is seen, for people."""
        ...

    def positions(self, visual_tokens: int) -> int:
        """How many positions of `prompts.encode` mark a picture of so many visual tokens."""
        ...

    def build(self, embedding_size: int, layers: int) -> Fusion:
        """For a language model of so many layers. Raises UserError where the settings do not fit it."""
        ...
