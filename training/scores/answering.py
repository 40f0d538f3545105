"""Questions about pictures -> the assistant's replies, through the very pipeline that serves.

As many questions are asked at a time as the engine decodes in one batch. The questions about one picture stand together, so
that the assistant encodes it once.
"""

import hashlib
import io
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from training.scores.journal import Journal, Key, Reply
from training.scores.selection import Options
from vlm.chat.answer import Answer, NoAnswer, Settings
from vlm.chat.assistant import Assistant
from vlm.errors import UserError
from vlm.inputs.images import open_image

BLANK = "blank"  # id of the white picture


@dataclass(frozen=True)
class ShownPicture:
    """Image bytes with their id, and the digest that replies are kept under."""

    name: str
    content: bytes
    digest: str


def shown_picture(name: str, content: bytes) -> ShownPicture:
    return ShownPicture(name, content, hashlib.sha256(content).hexdigest()[:16])


def blank_picture() -> ShownPicture:
    content = io.BytesIO()
    Image.new("RGB", (256, 256), "white").save(content, "PNG")
    return shown_picture(BLANK, content.getvalue())


def settings_of(assistant: Assistant, options: Options) -> Settings:
    """The preset's, but for what the options say."""
    return replace(
        assistant.settings,
        clean_up=options.answers == "clean",
        style=options.style,  # type: ignore[arg-type]
        temperature=options.temperature,
    )


def open_journal(assistant: Assistant, adapter: Path, options: Options, file: Path | None) -> Journal:
    """The answers so far, bound to the adapter's bytes, the model and the settings."""
    digest = hashlib.sha256()
    for part in sorted([*adapter.rglob("*.safetensors"), adapter / "config.yaml"]):
        digest.update(part.read_bytes())
    settings = asdict(settings_of(assistant, options))
    header = {"adapter": digest.hexdigest(), "model": assistant.description, "settings": settings}
    return Journal(file, header)


def answer_all(
    assistant: Assistant,
    asked: Iterable[tuple[str, str]],
    pictures: Mapping[str, ShownPicture],
    settings: Settings,
    journal: Journal,
) -> dict[tuple[str, str], Reply]:
    """(picture id, question) pairs, in which any may come several times -> the reply to each."""
    pairs = list(dict.fromkeys(asked))
    keys = {pair: (pictures[pair[0]].digest, pair[1]) for pair in pairs}
    missing: dict[Key, tuple[str, str]] = {}
    for pair in _by_picture(pairs):
        if keys[pair] not in journal.replies:
            missing.setdefault(keys[pair], pair)
    done = len(set(keys.values())) - len(missing)
    with ThreadPoolExecutor(assistant.engine.parallel) as pool:
        replies = [
            pool.submit(_reply, assistant, pictures[picture], question, settings)
            for picture, question in missing.values()
        ]
        try:
            for reply in tqdm(as_completed(replies), desc="answers", initial=done, total=done + len(replies)):
                journal.add(reply.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            for reply in replies:  # those that came beside the failure
                if not (reply.cancelled() or reply.exception()) and reply.result().key not in journal.replies:
                    journal.add(reply.result())
            raise
    return {pair: journal.replies[key] for pair, key in keys.items()}


def _by_picture(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    places: dict[str, int] = {}
    for picture, _ in pairs:
        places.setdefault(picture, len(places))
    return sorted(pairs, key=lambda pair: places[pair[0]])


def _reply(assistant: Assistant, picture: ShownPicture, question: str, settings: Settings) -> Reply:
    image = open_image(picture.content)  # here, so that few are open at a time
    try:
        answer = assistant.answer(question, images=[image], settings=settings)
    except NoAnswer:  # which is a wrong one
        answer = Answer(ended=True)
    verdict, _, reason = (answer.clean_up or "").partition(": ")
    if verdict == "failed":  # the next run asks again
        raise UserError(f"The clean-up of an answer failed: {reason}")
    return reply_of(answer, picture.name, picture.digest, question)


def reply_of(answer: Answer, picture: str, image: str, question: str) -> Reply:
    """An answer as the journal keeps it."""
    return Reply(
        picture=picture,
        image=image,
        question=question,
        text=answer.text,
        draft=answer.draft or "",
        clean_up=answer.clean_up or "off",
        tokens=answer.tokens,
        ended=answer.ended,
        seen=answer.seen,
        seconds=round(answer.seconds.get("total", 0.0), 3),
    )
