"""A model's words -> a tidy answer; pure functions.

In: a short answer about a picture. Out: the same words with spaces, stops, repetition and echoes put right.
Nothing is ever added but a capital, a space and a stop, and doing it twice changes nothing. Answers
to text questions, with their lists and code, do not come through here.
"""

import re
import unicodedata

LONGEST_PHRASE_WORDS = 40  # a repeated phrase longer than this is left alone, so that the search stays linear
_MEANT_TWICE = frozenset({"bye", "choo", "ha", "had", "that", "yo", "so", "no", "tom", "knock", "cha"})
_LIST_ITEM = re.compile(r"[-*+\u2022]\s|\d+[.)]\s")
_CODE = re.compile(r"[`|{\[]")  # or a table, or JSON
_UNSHOWN = re.compile(r"[\u200b\u2060\ufeff\ufffd\x00-\x08\x0e-\x1f\x7f]")
_LEFT_TO_READ = re.compile(r"://|@|^www\.|^[/~\\]", re.IGNORECASE)  # an address or a path
_SPACE_BEFORE_STOP = re.compile(r"(?<=\S)\s+(?=[,;!?]+(?:\s|$)|\.(?:\s|\.|$)|:(?:\s|$))")


def tidy(text: str) -> str:
    """Put spaces, stops, repetition and the first capital right; adds no word, and is idempotent."""
    before = None
    while text != before:  # a stop put right can show a repetition
        before, text = text, _tidy_once(text)
    return text


def _tidy_once(text: str) -> str:
    text = _UNSHOWN.sub(" ", unicodedata.normalize("NFC", text)).strip()
    if _CODE.search(text):  # its spaces and commas are its own
        return text
    lines: list[str] = []
    for line in map(_tidy_line, text.splitlines()):
        if not lines or line != lines[-1]:
            lines.append(line)
    if not lines:
        return ""
    if not _LIST_ITEM.match(lines[0]):
        lines[0] = _capitalise(lines[0])
    if not _LIST_ITEM.match(lines[-1].lstrip()):
        lines[-1] = _stop(lines[-1])
    return "\n".join(lines).strip()


def strip_echo(answer: str, question: str) -> str:
    """Drop the question, and the label "Answer:", from the front; where nothing else is there, tidy that."""
    rest = answer.strip()
    sentences = re.split(r"(?<=[.!?])\s+", question.strip())
    echoes = [re.findall(r"\w+", asked.casefold()) for asked in (question, sentences[-1])]
    while True:
        shorter = re.sub(r"^(?:answer|note)\s*:\s*", "", rest, flags=re.IGNORECASE)
        for echo in echoes:
            shorter = _without_echo(shorter, echo)
        if shorter == rest:
            return rest if re.search(r"\w", rest) else tidy(answer)
        rest = shorter


def _without_echo(answer: str, echo: list[str]) -> str:
    label = re.match(r"(?:question|q)\s*:\s*", answer, re.IGNORECASE)
    start = label.end() if label else 0
    spoken = [match for _, match in zip(echo, re.finditer(r"\w+", answer[start:]), strict=False)]
    if not echo or [match[0].casefold() for match in spoken] != echo:
        return answer
    rest = answer[start + spoken[-1].end() :]
    # "Dog." asked and "Dog food." answered is no echo: the question has to end where the echo does.
    if not re.match(r"[^\w\s]*(?:[?!:]|\.(?!\w))|\s*\n|\s*$|\s+[-\u2013\u2014:]\s", rest):
        return answer
    return re.sub(r"^[?!.:,;\"'\u201d\u2019*]*\s*(?:[-\u2013\u2014:]\s+)?", "", rest)


def _tidy_line(line: str) -> str:
    mark = re.match(rf"\s*(?:{_LIST_ITEM.pattern})?", line)
    lead = mark[0] if mark else ""
    text = _SPACE_BEFORE_STOP.sub("", " ".join(line[len(lead) :].split()))
    text = re.sub(r"^(?:[,;:!?.]+\s+)+", "", text)
    tokens = " ".join(map(_tidy_token, text.split())).split()
    return (lead + " ".join(_collapse(tokens))).rstrip()


def _tidy_token(token: str) -> str:
    if _LEFT_TO_READ.search(token):
        return token
    token = re.sub(r"([,;!?])\1+", r"\1", token)
    token = re.sub(r"(?<=\w)\.\.$", ".", re.sub(r"\.{4,}", "...", token))
    return re.sub(r"(?<=[^\W\d_])([,;!?])(?=[^\W\d_])", r"\1 ", token)


def _collapse(tokens: list[str]) -> list[str]:
    """A word, phrase or sentence said again at once is said once: "a dog a dog a dog" -> "a dog"."""
    before: list[str] = []
    while tokens != before:
        before, bare = tokens, _bare(tokens)
        start, kept = 0, list[str]()
        while start < len(tokens):
            size, rounds = _run(tokens, bare, start)
            kept += [*tokens[start : start + size - 1], _last_of_run(tokens, start, size, rounds)]
            start += size * rounds
            if rounds > 2 and _is_cut_off(tokens[start:], kept[-size:]):
                start = len(tokens)
                kept = kept[:-1] if kept[-1] in ("and", "or") and len(kept) > 1 else kept
        tokens = kept
    return tokens


def _run(tokens: list[str], bare: list[str], start: int) -> tuple[int, int]:
    """(words of the shortest phrase repeated from `start` on, how often it stands there); else (1, 1)."""
    for size in range(1, min(LONGEST_PHRASE_WORDS, (len(tokens) - start) // 2) + 1):
        phrase = bare[start : start + size]
        if bare[start + size : start + 2 * size] != phrase or (size == 1 and phrase[0] in _MEANT_TWICE):
            continue
        if not any(character.isalpha() for character in "".join(phrase)):
            break  # 2 2, 1 + 1 + 1
        rounds, end = 1, start + size
        while bare[end : end + size] == phrase and _runs_on(tokens, end - 1, end + size - 1):
            rounds, end = rounds + 1, end + size
        if rounds > 1:
            return size, rounds
    return 1, 1


def _bare(tokens: list[str]) -> list[str]:
    return [token.casefold().rstrip(",.;:!?") or token for token in tokens]


def _ending(token: str) -> str:
    return token[-1] if token[-1] in ",.;:!?" else ""


def _runs_on(tokens: list[str], first: int, second: int) -> bool:
    """Whether the stops after two like phrases allow one to go: not in "I see the dog. The dog barks."."""
    one, two = _ending(tokens[first]), _ending(tokens[second])
    at_end = second == len(tokens) - 1
    if one in (".", "!", "?"):
        return two == one or (at_end and not two)
    return not one or bool(two) or at_end


def _is_cut_off(tail: list[str], phrase: list[str]) -> bool:
    """Whether the text ends in the beginning of one more round, as a loop does at the length limit."""
    whole = bool(tail) and _ending(tail[-1]) != ""
    return len(tail) < len(phrase) and _bare(tail) == _bare(phrase)[: len(tail)] and not whole


def _last_of_run(tokens: list[str], start: int, size: int, rounds: int) -> str:
    first, last = tokens[start + size - 1], tokens[start + size * rounds - 1]
    if rounds == 1 or (not _ending(last) and _ending(first) in (".", "!", "?")):
        return first
    return first.rstrip(",.;:!?") + last[len(last.rstrip(",.;:!?")) :]


def _capitalise(text: str) -> str:
    first = re.match(r"[\"'\u201c\u2018(\[*_]*([^\W\d_][\w'\u2019-]*)(?![\w'\u2019-]|[.@/]\w)", text)
    if not first or first[1] != first[1].lower() or re.search(r"[\d_]", first[1]):
        return text  # iPhone, x86, e.g., example.com
    at, capital = first.start(1), first[1][0].title()
    return text[:at] + capital + text[at + 1 :] if capital.lower() == text[at] else text


def _stop(text: str) -> str:
    if not any(character.isalpha() for character in text):
        return text  # a bare number: "3." would be read as a list
    tokens = text.split()
    while not set(tokens[-1]) - set(",;-\u2013\u2014"):
        tokens.pop()
    text = text[: text.rindex(tokens[-1]) + len(tokens[-1])].rstrip(",;")
    last = text.rstrip("\"'\u201d\u2019)]*_")[-1:]
    if not text or _LEFT_TO_READ.search(text.split()[-1]):
        return text
    # Only scripts with capitals end their sentences with this stop.
    return text + "." if last.isdigit() or last in "%\u00b0" or last.lower() != last.upper() else text
