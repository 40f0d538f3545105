"""An answer and its reference sentences -> how much of their wording it shares. Pure functions.

In: texts. Out: BLEU-1 to 4, ROUGE-L, METEOR and CIDEr as the COCO caption evaluation computes them (arXiv:1504.00325),
without its Java parts: words are split here, in lower case and without punctuation, in place of the Penn Treebank
tokenizer, and METEOR matches exact words and stems, without WordNet's synonyms. BLEU comes as counts that add up, so that
any selection of examples has its own. SPICE is in spice.py, and SPICE_ELSEWHERE says so.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

ORDERS = (1, 2, 3, 4)  # words in an n-gram
SPICE_ELSEWHERE = "it needs Java; python -m training.score computes it where java and pycocoevalcap are found"
ROUGE_BETA = 1.2  # how much more recall counts than precision
CIDER_SIGMA = 6.0  # of the penalty for another length
BLEU_COLUMNS = (
    *(f"bleu_same_{n}" for n in ORDERS),
    *(f"bleu_all_{n}" for n in ORDERS),
    "bleu_words",
    "bleu_reference_words",
)


def tokens(text: str) -> list[str]:
    """Lower-case words without punctuation; "don't" and "T-shirt" are one each."""
    return re.findall(r"\w+(?:['\u2019-]\w+)*", text.lower())


def bleu_counts(answer: str, references: Sequence[str]) -> dict[str, float]:
    """What BLEU adds up over examples (Papineni et al., 2002): for each order the n-grams shared with a reference and
    all of the answer's, its words, and the words of the reference closest in length. Keys: BLEU_COLUMNS."""
    from nltk.translate.bleu_score import closest_ref_length, modified_precision  # slow to import

    words, others = tokens(answer), [tokens(reference) for reference in references]
    counts = {}
    for n in ORDERS:
        counts[f"bleu_same_{n}"] = float(modified_precision(others, words, n).numerator)
        # nltk counts one n-gram where there is none, which is hard on answers of two words
        counts[f"bleu_all_{n}"] = float(max(0, len(words) - n + 1))
    closest = closest_ref_length(others, len(words))
    return counts | {"bleu_words": float(len(words)), "bleu_reference_words": float(closest)}


def bleu(sums: dict[str, Any], order: int) -> Any:
    """BLEU of summed counts, each a number or an array [R] of resamples; not a number where the answers have no such
    n-gram. The same for one example as for many."""
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = [np.divide(sums[f"bleu_same_{n}"], sums[f"bleu_all_{n}"]) for n in ORDERS[:order]]
        mean = np.exp(sum(np.log(each) for each in shares) / order)
        ratio = np.divide(sums["bleu_reference_words"], sums["bleu_words"])
        return mean * np.exp(np.minimum(0.0, 1.0 - ratio))


def rouge_l(answer: str, references: Sequence[str]) -> float:
    """F-score of the longest common subsequence of words (Lin, 2004); the best precision and the best recall over the
    references, as in COCO."""
    words, others = tokens(answer), [tokens(reference) for reference in references]
    common = [_longest_common(words, other) for other in others]
    precision = max(each / max(1, len(words)) for each in common)
    recall = max(each / max(1, len(other)) for each, other in zip(common, others, strict=True))
    if not precision or not recall:
        return 0.0
    return (1 + ROUGE_BETA**2) * precision * recall / (recall + ROUGE_BETA**2 * precision)


def _longest_common(left: Sequence[str], right: Sequence[str]) -> int:
    row = [0] * (len(right) + 1)
    for word in left:
        before = row
        row = [0]
        for place, other in enumerate(right):
            row.append(before[place] + 1 if word == other else max(before[place + 1], row[place]))
    return row[-1]


class _NoSynonyms:
    """Stands where nltk wants WordNet, whose data is not installed."""

    def synsets(self, word: str) -> list[Any]:
        return []


def meteor(answer: str, references: Sequence[str]) -> float:
    """METEOR (exact and stem) against the best of the references (Lavie and Agarwal, 2007), nltk's. One right word
    scores 0.5: its penalty for scattered words knows no single ones."""
    from nltk.stem.porter import PorterStemmer  # slow to import
    from nltk.translate.meteor_score import meteor_score

    words, others = tokens(answer), [tokens(reference) for reference in references]
    return float(meteor_score(others, words, stemmer=PorterStemmer(), wordnet=_NoSynonyms()))  # type: ignore


def cider(answers: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """CIDEr-D of each answer, 0 to 10 (arXiv:1411.5726), where rare n-grams count more: how rare they are is taken from
    the references of all examples. As in COCO, lengths are compared in pairs of words."""
    cooked = [[_ngrams(text) for text in texts] for texts in references]
    frequency = Counter(ngram for texts in cooked for ngram in set().union(*texts))
    rarity = {ngram: math.log(len(cooked)) - math.log(count) for ngram, count in frequency.items()}
    unknown = math.log(len(cooked)) if cooked else 0.0
    scores = []
    for answer, texts in zip(answers, cooked, strict=True):
        said = _weigh(_ngrams(answer), rarity, unknown)
        likeness = [_likeness(said, _weigh(text, rarity, unknown)) for text in texts]
        scores.append(10 * sum(likeness) / len(likeness))
    return scores


@cache
def _ngrams(text: str) -> Counter[tuple[str, ...]]:
    words = tokens(text)
    return Counter(tuple(words[at : at + n]) for n in ORDERS for at in range(len(words) - n + 1))


def _weigh(
    counts: Counter[tuple[str, ...]], rarity: dict[tuple[str, ...], float], unknown: float
) -> tuple[dict[tuple[str, ...], float], list[float], int]:
    """-> weight of each n-gram, norm for each order, number of pairs of words"""
    weights = {ngram: count * rarity.get(ngram, unknown) for ngram, count in counts.items()}
    norms = [math.sqrt(sum(w * w for ngram, w in weights.items() if len(ngram) == n)) for n in ORDERS]
    return weights, norms, sum(count for ngram, count in counts.items() if len(ngram) == 2)


def _likeness(
    said: tuple[dict[tuple[str, ...], float], list[float], int],
    truth: tuple[dict[tuple[str, ...], float], list[float], int],
) -> float:
    """Mean over the orders of the clipped cosine, less where the lengths differ."""
    (weights, norms, pairs), (others, other_norms, other_pairs) = said, truth
    shared = [0.0] * len(ORDERS)
    for ngram, weight in weights.items():
        other = others.get(ngram, 0.0)
        shared[len(ngram) - 1] += min(weight, other) * other
    scales = [own * other or 1.0 for own, other in zip(norms, other_norms, strict=True)]
    penalty = math.exp(-((pairs - other_pairs) ** 2) / (2 * CIDER_SIGMA**2))
    return penalty * sum(each / scale for each, scale in zip(shared, scales, strict=True)) / len(ORDERS)
