"""A model and questions about pictures -> its answers, as drafts or as the app gives them, and how likely the truth was.

In: what is seen in each picture, and the question. Out: texts in the order of the questions. Unusual: answers come in
batches of similar length, so the clean-up is the app's (vlm/chat/clean_up.py), but for many at once; and references are read
one by one, since the model gives the loss of a batch, and each example needs its own.
"""

import random
from collections.abc import Sequence
from dataclasses import replace

import torch
from tqdm import tqdm

from training.data import Collator
from vlm.chat import clean_up
from vlm.chat.tidy import strip_echo, tidy, to_keywords
from vlm.config import AnswersConfig
from vlm.model.prompts import IGNORE
from vlm.model.vlm import Draft, Sight, VisionLanguageModel, VisualTurn

Question = tuple[Sight, str]


def answer_all(
    model: VisionLanguageModel,
    questions: Sequence[Question],
    options: AnswersConfig,
    clean: bool = False,
    batch_size: int = 32,
) -> list[Draft]:
    """Stripped drafts, or tidied and cleaned up; in keywords where the options' style says so."""
    conversations = [[VisualTurn(question, "", (sight,))] for sight, question in questions]
    drafts = _generate(model, conversations, options, options.image_system, True, batch_size)
    drafts = [draft._replace(text=draft.text.strip()) for draft in drafts]
    if clean:
        asked = [question for _, question in questions]
        texts = _clean_all(model, asked, [draft.text for draft in drafts], options, batch_size)
        drafts = [draft._replace(text=text) for draft, text in zip(drafts, texts, strict=True)]
    if options.style == "keywords":
        drafts = [draft._replace(text=to_keywords(draft.text)) for draft in drafts]
    return drafts


def _generate(
    model: VisionLanguageModel,
    conversations: Sequence[Sequence[VisualTurn]],
    options: AnswersConfig,
    system: str,
    adapter: bool,
    batch_size: int,
) -> list[Draft]:
    # questions about one picture stand together, since a batch reads each picture once
    pictures = [tuple(id(sight.patch_features) for sight in turns[-1].sights) for turns in conversations]
    places = {picture: place for place, picture in enumerate(pictures)}
    lengths = [len(turns[-1].question) for turns in conversations]
    order = sorted(range(len(lengths)), key=lambda index: (places[pictures[index]], lengths[index]))
    drafts = [Draft("", False)] * len(conversations)
    for start in tqdm(range(0, len(order), batch_size), desc="answers" if adapter else "clean-up"):
        indices = order[start : start + batch_size]
        batch = [conversations[index] for index in indices]
        for index, draft in zip(indices, model.draft_all(batch, options, system, adapter), strict=True):
            drafts[index] = draft
    return drafts


def _clean_all(
    model: VisionLanguageModel,
    questions: Sequence[str],
    drafts: Sequence[str],
    options: AnswersConfig,
    batch_size: int,
) -> list[str]:
    """As vlm/chat/assistant.py  does it for one answer."""
    texts = [tidy(strip_echo(draft, question)) for draft, question in zip(drafts, questions, strict=True)]
    said = [index for index, text in enumerate(texts) if text and options.clean_up]
    requests = [clean_up.request(questions[index], texts[index]) for index in said]
    greedy = replace(options, max_new_tokens=clean_up.MAX_NEW_TOKENS, temperature=0.0)
    rewritings = _generate(model, requests, greedy, clean_up.SYSTEM, False, batch_size)
    for index, rewriting in zip(said, rewritings, strict=True):
        texts[index], _ = clean_up.judge(questions[index], texts[index], rewriting.text)
    return texts


def reference_loss(
    model: VisionLanguageModel, sight: Sight, question: str, truth: str, system: str
) -> tuple[float, int]:
    """Minus log likelihood of the true answer with its end, in nats, and its number of tokens: perplexity is
    exp(sum of nats / sum of tokens)."""
    encoded = model.encode([VisualTurn(question, truth, (sight,))], system)
    batch = Collator(model.language.pad_id)([{"encoded": encoded, "patch_features": sight.patch_features}])
    learned = sum(label != IGNORE for label in encoded.labels)
    with torch.inference_mode():
        return float(model(**batch)["loss"]) * learned, learned


def other_pictures(pictures: Sequence[str], seed: int = 0) -> dict[str, str]:
    """Each distinct picture -> another one, each used once: one round through all of them in a drawn order. Empty where
    there is only one."""
    names = sorted(set(pictures))
    random.Random(seed).shuffle(names)
    return dict(zip(names, names[1:] + names[:1], strict=True)) if len(names) > 1 else {}
