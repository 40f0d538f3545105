"""Patch features -> the names of what a picture shows, and where, as text for the prompt.

Two linear classifiers look at the encoder's pooled feature: the encoder's own, which knows the 1,000 classes of
ImageNet, and a head that training fits to the nouns of its pictures (training/tags.py). Their best names enter the
prompt ("object tags", as in Oscar, arXiv:2004.06165, and Tag2Text, arXiv:2303.05657): a language model with a few
thousand training pictures would otherwise have to learn every object of the world anew.

The things that a question names are looked up as well, as InstructBLIP (arXiv:2305.06500) looks at a picture with the
question in mind: how likely each is, and where. Linear classifiers of an average see in a cell its share of what they
see in the whole (class activation maps, arXiv:1512.04150). Where neither classifier knows a thing, what it looks like
is guessed from what the language model makes of its name (zero-shot, as in DeViSE, NIPS 2013). Who asks for a colour is
told the one that the thing asked about has where it is seen.
"""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from vlm.chat.words import base_form, content_words, content_words_with_phrases
from vlm.model.colours import NAMED_COLOURS, SHARES
from vlm.model.connectors import Standardise

ENCODER_SHARE = 0.3  # weight of the encoder's own classifier beside the head
SIDES = ("left", "right"), ("above", "below")
OFF_CENTRE = 0.15  # of the half width: nearer to the middle, a thing is on no side
# of the picture, not of what is in it
QUESTION_WORDS = frozenset(map(base_form, ["drawing", "image", "photo", "photograph", "picture"]))
# of a question, and of no one thing
_OTHER_WORDS = "activity caption category class color description kind number object other pair shape side sort thing type"
NO_THINGS = QUESTION_WORDS | frozenset(map(base_form, _OTHER_WORDS.split()))
COLOUR_WORDS = frozenset(map(base_form, ["color", *NAMED_COLOURS]))
COLOUR_LOOK = 4 * SHARES  # numbers that a thing's colour is told from
LEAST_SHARE = 0.01  # of a colour: the logarithm of less is taken for this
# Cosine of a guessed look and a picture -> log-probability: with these, names that were hidden from the head were found
# most often among four, the others known (training/trials.md)
GUESS_SLOPE, GUESS_SHIFT = 15.0, -5.7
VECTORS_KEPT = 8192  # names whose vectors are remembered
NAME_WORDS = 4  # the longest unknown name

ReadNames = Callable[[Sequence[str]], Tensor]  # names -> what the language model makes of them, [n, Dl]


class WordClassifier(nn.Module):
    """Vectors of names [n, Dl] and pooled features [B, Dc] -> how much each picture looks as each name would, cosines
    [B, n]."""

    def __init__(self, vector_size: int, feature_size: int) -> None:
        super().__init__()
        self.normalise = Standardise(feature_size)
        self.look = nn.Linear(vector_size, feature_size)
        self.requires_grad_(False)

    def forward(self, vectors: Tensor, pooled: Tensor) -> Tensor:
        looks = functional.normalize(self.look(vectors.to(self.look.weight)), dim=-1)
        return functional.normalize(self.normalise(pooled.to(self.look.weight)), dim=-1) @ looks.T


class Tagger(nn.Module):
    """`classifier` is the encoder's own, [Dc] -> [len(classes)]; `count` names are given for a picture, and those in a
    question if `asks`, unknown ones if the language model can `read_names`. Features may have more channels than the
    Dc that the classifiers look at, the first; if they have `colours`, the last are vlm.model.colours.colour_shares."""

    def __init__(
        self,
        classifier: nn.Linear,
        classes: Sequence[str],
        count: int,
        asks: bool = False,
        read_names: ReadNames | None = None,
        colours: bool = False,
    ) -> None:
        super().__init__()
        self.classifier, self.classes, self.count, self.asks = classifier, list(classes), count, asks
        self.read_names, self.colours = read_names, colours
        self.colour: nn.Linear | None = None  # [COLOUR_LOOK] -> [len(NAMED_COLOURS)]
        self.vectors: dict[str, Tensor] = {}
        self.set_head(None, [])

    def set_head(
        self,
        head: nn.Linear | None,
        nouns: Sequence[str],
        guess: WordClassifier | None = None,
        hidden: Sequence[str] = (),
    ) -> None:
        """Take a head [Dc] -> [len(nouns)]. A noun that is a class of the encoder as well is one name. `hidden` nouns are
        looked up as if the head did not know them."""
        self.head = head and head.to(self.classifier.weight).requires_grad_(False)
        self.guess = guess and guess.to(self.classifier.weight)
        self.nouns, self.hidden = list(nouns), list(hidden)
        self.names = list({name.lower(): name for name in [*self.classes, *nouns]}.values())
        places = {name.lower(): place for place, name in enumerate(self.names)}
        self.class_places = torch.tensor([places[name.lower()] for name in self.classes], dtype=torch.long)
        self.noun_places = torch.tensor([places[noun.lower()] for noun in nouns], dtype=torch.long)
        self.by_words: dict[tuple[str, ...], list[int]] = defaultdict(list)
        self.classes_by_words: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for place, name in enumerate(self.names if self.asks else ()):
            self.by_words[_words_of(name)].append(place)
        for place, name in enumerate(self.classes if self.guess else ()):
            self.classes_by_words[_words_of(name)].append(place)
        known = set(map(_words_of, nouns)) - set(map(_words_of, hidden))
        self.guessed = set(self.by_words) - known if self.guess else set()
        self.longest = max(map(len, self.by_words), default=0)  # words

    def set_colour(self, colour: nn.Linear) -> None:
        """Take what tells a thing's colour from `colour_look`, [COLOUR_LOOK] -> [len(NAMED_COLOURS)]."""
        self.colour = colour.to(self.classifier.weight).requires_grad_(False)

    def with_head(self, *head: Any, **more: Any) -> "Tagger":
        """Another tagger on the same encoder; arguments as for `set_head`."""
        other = Tagger(self.classifier, self.classes, self.count, self.asks, self.read_names, self.colours)
        other.vectors, other.colour = self.vectors, self.colour
        other.set_head(*head, **more)
        return other

    def read(self, names: Sequence[str]) -> Tensor:
        """Names -> their vectors, [n, Dl]; each is read once."""
        vectors = self.vectors
        new = [name for name in dict.fromkeys(names) if name not in vectors]
        if len(vectors) + len(new) > VECTORS_KEPT:
            vectors = self.vectors = {}  # not emptied: another answer may be reading from the one before
            new = list(dict.fromkeys(names))
        if new and self.read_names:
            vectors.update(zip(new, self.read_names(new), strict=True))
        return torch.stack([vectors[name] for name in names])

    @torch.inference_mode()
    def forward(self, pooled: Tensor) -> Tensor:
        """Pooled features, or cells of the grid, [B, Dv] -> probabilities of `names`, [B, len(names)]."""
        pooled = pooled[:, : self.classifier.in_features].to(self.classifier.weight)
        share = ENCODER_SHARE if self.head else 1.0
        mixed = pooled.new_zeros(len(pooled), len(self.names))
        mixed.index_add_(1, self.class_places.to(mixed.device), share * self.classifier(pooled).softmax(-1))
        if self.head:
            seen = self.head(pooled).softmax(-1)
            mixed.index_add_(1, self.noun_places.to(mixed.device), (1 - share) * seen)
        return mixed

    def tags(self, pooled: Tensor) -> list[str]:
        """[B, Dv] -> "espresso 9, cup 0, eggnog 0": the best names with their probability in tenths."""
        top = self(pooled).topk(self.count)
        rows = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        return [
            ", ".join(f"{self.names[place]} {int(10 * value)}" for place, value in zip(*row, strict=True))
            for row in rows
        ]

    def asked(self, question: str, patch_features: Tensor) -> str:
        """A question and a picture [N, Dv], the pooled feature first -> "dog 8 left above, yak? 2 right": each thing that
        the question names, the likeliest first, one that the head does not know with a question mark, from 9 for a
        probability of a third or more, one less for every further third of it, down to 0, and the sides where it is
        seen rather than the other things asked about. A question about colours is told them, "dog 8 brown left", and if
        it names nothing, that of the likeliest thing. Else "" where it names nothing."""
        if not self.asks:
            return ""
        about_colour = self.colour is not None and not COLOUR_WORDS.isdisjoint(content_words(question))
        found = self._things(question, patch_features) if about_colour else self.named_in(question)
        if not found:
            return ""
        likelihoods, shares = self._places(found, patch_features)
        levels = [max(0, 9 - int(-value / math.log(3))) for value in likelihoods.tolist()]
        colours = self._colours(shares, patch_features) if about_colour else [""] * len(found)
        tags = [
            " ".join(filter(None, [name, str(level), colour, *_sides(row)]))
            for name, level, colour, row in zip(found, levels, colours, shares, strict=True)
        ]
        likeliest_first = likelihoods.argsort(descending=True, stable=True)
        return ", ".join(tags[place] for place in likeliest_first.tolist())

    def _things(self, question: str, patch_features: Tensor) -> dict[str, list[int]]:
        """What a question names, or the likeliest thing of the picture."""
        found = self.named_in(question)
        if found:
            return found
        place = int(self(patch_features[:1]).argmax())
        return {self.names[place]: [place]}

    def _places(self, found: dict[str, list[int]], patch_features: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability of each name in the picture, [asked], and how much of it is seen in each cell, [asked, N - 1]."""
        likelihoods = self._likelihoods(found, patch_features)
        evidence = likelihoods[:, 1:]
        if len(found) > 1:
            evidence = evidence - evidence.mean(0)
        return likelihoods[:, 0], evidence.softmax(-1)

    @torch.inference_mode()
    def _colours(self, shares: Tensor, patch_features: Tensor) -> list[str]:
        """Where things are seen [asked, cells] -> the colour of each."""
        assert self.colour
        best = self.colour(_colour_looks(shares, patch_features)).argmax(-1)
        return [NAMED_COLOURS[place] for place in best.tolist()]

    def colour_look(self, question: str, patch_features: Tensor) -> Tensor:
        """What `colour` looks at to tell the colour of the first thing asked about, [COLOUR_LOOK]."""
        _, shares = self._places(self._things(question, patch_features), patch_features)
        return _colour_looks(shares[:1], patch_features)[0]

    @torch.inference_mode()
    def _likelihoods(self, found: dict[str, list[int]], patch_features: Tensor) -> Tensor:
        """Log-probability of each name in the picture and in its cells, [asked, N]."""
        probabilities = self(patch_features)  # [N, V]
        rows = {
            name: probabilities[:, places].sum(-1).clamp(min=1e-9).log() for name, places in found.items()
        }
        guessed = [name for name, places in found.items() if not places]
        if guessed and self.guess:
            pooled = patch_features[:, : self.classifier.in_features].to(self.classifier.weight)
            own = self.classifier(pooled).softmax(-1)  # [N, classes]
            cosines = self.guess(
                self.read([name.rstrip("?").lower() for name in guessed]), pooled
            )  # [N, guessed]
            likely = (GUESS_SLOPE * cosines + GUESS_SHIFT).exp()
            for name, column in zip(guessed, likely.T, strict=True):
                places = self.classes_by_words.get(_words_of(name), [])
                rows[name] = (column + own[:, places].sum(-1)).clamp(1e-9, 1).log()
        return torch.stack(list(rows.values()))

    def named_in(self, question: str) -> dict[str, list[int]]:
        """The names in a text, in order, the longest that fit, each with its places in `names`; "yak?", without a place,
        for one that the head does not know, and for whatever else stands behind an article."""
        said = [word for word in content_words_with_phrases(question) if word.base not in QUESTION_WORDS]
        bases = [word.base for word in said]
        found: dict[str, list[int]] = {}
        start = 0
        while start < len(said):
            length = self._longest_name(bases[start:])
            if length:
                said_name = tuple(bases[start : start + length])
                places = self.by_words[said_name]
                name = self.names[places[0]]
                found |= {f"{name}?": []} if said_name in self.guessed else {name: places}
            elif self.guess and (unknown := self._unknown(said[start].phrase)):
                found[unknown + "?"] = []
                length = len(content_words(unknown))
            start += length or 1
        return found

    def _longest_name(self, bases: Sequence[str]) -> int:
        """How many words of a text's beginning are a name."""
        lengths = range(min(self.longest, len(bases)), 0, -1)
        return next((length for length in lengths if tuple(bases[:length]) in self.by_words), 0)

    def _unknown(self, phrase: str) -> str:
        """A phrase that holds no known name, or ""."""
        bases = content_words(phrase)[:NAME_WORDS]
        if (
            not bases
            or bases[-1] in NO_THINGS
            or any(self._longest_name(bases[at:]) for at in range(len(bases)))
        ):
            return ""
        return " ".join(phrase.split()[:NAME_WORDS])

    def save(self, file: Path) -> None:
        """Half precision, without a pickle; a tagger without a head is saved as such."""
        state = self.head.state_dict() if self.head else {}
        if self.guess:
            state = state | {f"guess.{name}": tensor for name, tensor in self.guess.state_dict().items()}
        if self.colour:
            state = state | {f"colour.{name}": tensor for name, tensor in self.colour.state_dict().items()}
        tensors = {name: tensor.half().contiguous() for name, tensor in state.items()}
        told = {"nouns": self.nouns, "hidden": self.hidden}
        metadata = {key: json.dumps(names, ensure_ascii=False) for key, names in told.items()}
        save_file(tensors, file, metadata=metadata)

    def load(self, file: Path) -> None:
        with safe_open(file, framework="pt") as stored:
            nouns, hidden = (json.loads(stored.metadata().get(key, "[]")) for key in ("nouns", "hidden"))
            state = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        guessed, colour = (
            {name.removeprefix(part): state.pop(name) for name in list(state) if name.startswith(part)}
            for part in ("guess.", "colour.")
        )
        head = nn.Linear(self.classifier.in_features, len(nouns)) if nouns else None
        if head:
            head.load_state_dict(state)
        guess = None
        if guessed:
            guess = WordClassifier(guessed["look.weight"].shape[1], self.classifier.in_features)
            guess.load_state_dict(guessed)
        self.set_head(head, nouns, guess, hidden)
        self.colour = None
        if colour:
            classifier = nn.Linear(COLOUR_LOOK, len(NAMED_COLOURS))
            classifier.load_state_dict(colour)
            self.set_colour(classifier)


def _words_of(name: str) -> tuple[str, ...]:
    """A name as it is looked for in a question: "duck" and "ducks" are one."""
    return tuple(content_words(name))


def _colour_looks(shares: Tensor, patch_features: Tensor) -> Tensor:
    """Where things are seen [asked, cells] -> the logarithms of the shares of colours there, in the whole, and in the cells
    that have the most and the least of each, [asked, COLOUR_LOOK]: a ground's colour is in all cells, a thing's in few."""
    whole, cells = patch_features[0, -SHARES:].to(shares), patch_features[1:, -SHARES:].to(shares)
    anywhere = torch.cat([whole, cells.amax(0), cells.amin(0)]).expand(len(shares), -1)
    return torch.cat([shares @ cells, anywhere], dim=1).clamp(min=LEAST_SHARE).log()


def _sides(shares: Tensor) -> list[str]:
    """How much of a thing is seen in each cell of a square grid [N], which sums to 1 -> the sides of its centre."""
    size = math.isqrt(len(shares))
    places = torch.linspace(-1, 1, size, device=shares.device) if size > 1 else shares.new_zeros(1)
    grid = shares.view(size, size)
    centre = (grid.sum(0) @ places).item(), (grid.sum(1) @ places).item()
    return [pair[along > 0] for pair, along in zip(SIDES, centre, strict=True) if abs(along) >= OFF_CENTRE]
