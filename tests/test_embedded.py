"""The embedded preset with its real weights and the shipped adapter: text, speech, pictures, the shell."""

import json
import re
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import EXAMPLES, ROOT
from vlm import Assistant, Settings, Turn, UserError
from vlm.__main__ import main

SPOKEN = EXAMPLES / "what-is-in-the-picture.wav"
SHORT = Settings(max_new_tokens=32, clean_up=False)


@pytest.fixture(scope="module")
def shape() -> Image.Image:
    """A red rectangle, as in easy-VQA; drawn here, so in no training set."""
    image = Image.new("RGB", (64, 64), "white")
    image.paste("red", (18, 24, 48, 40))
    return image


def test_text_goes_to_the_base_model_on_llama_cpp(assistant: Assistant) -> None:
    asked = "What is the capital of Australia, and why is it not Sydney?"
    answer = assistant.answer(asked, settings=Settings(max_new_tokens=48))
    assert "Canberra" in answer.text and "Sydney" in answer.text
    assert (answer.route, answer.adapter, answer.draft, answer.clean_up) == ("text", None, None, None)
    assert (answer.engine, answer.device, answer.model) == ("llama.cpp", "CPU", "qwen2.5-coder-1.5b-instruct")
    assert assistant.notice == ""


@pytest.mark.slow
def test_the_shell_answers_and_no_two_threads_import_the_same_and_llama_cpp_does_not_wait_at_barriers() -> (
    None
):
    """In a process of its own. Of two threads that import the same one may fail, and with it the start. llama.cpp's two
    spin at their barriers; once OpenMP's of torch and Whisper outnumber the cores, they sleep there, hundreds of times a
    token."""
    program = """
import json, os, sys, threading
from pathlib import Path
class Watch:
    @staticmethod
    def find_spec(name, path=None, target=None):
        imported.setdefault(threading.current_thread().name.partition("_")[0], []).append(name)
imported = {}
sys.meta_path.insert(0, Watch)
from vlm import Settings, __main__ as shell
load = shell.load_assistant
def load_watched(*names):
    global assistant
    assistant = load(*names)
    sys.meta_path.remove(Watch)
    return assistant
shell.load_assistant = load_watched
shell.main()
def sleeps():
    statuses = [Path(f"/proc/self/task/{each}/status").read_text() for each in os.listdir("/proc/self/task")]
    return sum(int(each.split("voluntary_ctxt_switches:")[1].split()[0]) for each in statuses)
before = sleeps()
answer = assistant.answer("Count from one to ten.", settings=Settings(24))
print(json.dumps([imported, (sleeps() - before) / answer.tokens]))
"""
    asked = [
        "--image",
        str(EXAMPLES / "cat.jpg"),
        "--audio",
        str(EXAMPLES / "what-color-is-it.wav"),
        "--json",
    ]
    asked += "--max-tokens 1 --temperature 0.1 --seed 7 --style keywords".split()
    command = [sys.executable, "-c", program, *asked]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    *printed, measured = done.stdout.splitlines()
    told = json.loads("\n".join(printed))
    assert told["text"] and told["route"] == "image" and told["adapter"] == "embedded"
    assert (told["tokens"], told["ended"], told["seed"]) == (1, False, 7)
    assert "color" in told["transcript"]
    imported, sleeps_a_token = json.loads(measured)
    assert set(imported) == {"MainThread", "tokenizer", "speech"}
    assert not {*imported["tokenizer"]} & {*imported["speech"]}
    assert not any(name.startswith(("faster_whisper", "tokenizers")) for name in imported["speech"])
    assert sleeps_a_token < 60


def test_a_talk_stays_on_its_subject(assistant: Assistant) -> None:
    history: list[Turn] = []
    for question, expected in (
        ("Who wrote Pride and Prejudice?", "Austen"),
        ("In which country was she born?", "England"),
        ("And the capital of that country?", "London"),
        ("Which river flows through it?", "Thames"),
    ):
        answer = assistant.answer(question, history=history, settings=SHORT)
        assert expected in answer.text
        assert answer.left_out == 0
        history.append(Turn(question, answer.text))


def test_speech_is_transcribed_and_answered_as_text(assistant: Assistant) -> None:
    snapshots = list(assistant.stream(audio=EXAMPLES / "what-is-the-capital-of-France.wav", settings=SHORT))
    heard = next(index for index, answer in enumerate(snapshots) if answer.transcript)
    spoke = next(index for index, answer in enumerate(snapshots) if answer.text)
    assert heard < spoke
    assert "capital of France" in (snapshots[-1].transcript or "")
    assert "Paris" in snapshots[-1].text
    assert snapshots[-1].route == "text"


def test_silence_is_no_question(assistant: Assistant) -> None:
    with pytest.raises(UserError, match="Nothing was heard"):
        assistant.answer(audio=(16_000, np.zeros(16_000, dtype=np.float32)))


def test_an_answer_grows_and_can_be_stopped_at_any_moment(assistant: Assistant) -> None:
    stream = assistant.stream("Count from one to fifty in words.", settings=Settings(max_new_tokens=512))
    texts = [next(stream).text for _ in range(4)]
    assert texts == sorted(texts, key=len)
    stream.close()  # type: ignore[attr-defined]
    answer = assistant.answer("What is the capital of France?", settings=SHORT)
    assert "Paris" in answer.text and answer.ended


def test_a_question_about_a_picture_is_answered_through_the_adapter(
    assistant: Assistant, shape: Image.Image
) -> None:
    answer = assistant.answer("what color is the rectangle?", images=[shape])
    assert "red" in answer.text.lower()
    assert answer.text[0].isupper() and answer.text.endswith(".")
    assert (answer.route, answer.stage, answer.adapter) == ("image", "done", "embedded")
    assert answer.draft and answer.clean_up and answer.ended
    assert re.fullmatch(r"[\w' -]+ \d+%(, [\w' -]+ \d+%){,3}", answer.seen)
    assert json.loads(json.dumps(answer.to_dict()))["text"] == answer.text


def test_the_shipped_adapter_names_the_example_pictures(assistant: Assistant) -> None:
    names = {path.stem.replace("-", " "): path for path in EXAMPLES.glob("*.jpg")}
    answers = {
        name: assistant.answer("What is this?", [path], settings=SHORT).text.lower()
        for name, path in names.items()
    }
    right = [name for name, answer in answers.items() if name in answer]
    assert len(right) >= 4, answers


def test_a_picture_has_follow_up_questions(assistant: Assistant) -> None:
    sign = str(EXAMPLES / "stop-sign.jpg")
    first = assistant.answer("What is this?", [sign], settings=SHORT)
    history = [Turn("What is this?", first.text, (sign,))]
    colour = assistant.answer("What color is it?", history=history, settings=SHORT)
    assert "stop sign" in first.text.lower() and "red" in colour.text.lower()
    history.append(Turn("What color is it?", colour.text))
    third = assistant.answer("Is there a dog?", history=history, settings=SHORT)
    assert third.text.lower().startswith("no")
    assert {each.route for each in (first, colour, third)} == {"image"}
    assert first.seen == colour.seen == third.seen


def test_a_spoken_question_about_a_picture_is_a_picture_question(
    assistant: Assistant, shape: Image.Image
) -> None:
    answer = assistant.answer(audio=SPOKEN, images=[shape], settings=SHORT)
    assert (answer.route, bool(answer.draft)) == ("image", True)
    assert "picture" in (answer.transcript or "")


def test_keywords_stay_words_and_become_a_sentence_otherwise(
    assistant: Assistant, shape: Image.Image
) -> None:
    words = assistant.answer("what shape is this?", [shape], settings=replace(SHORT, style="keywords")).text
    assert not set(words.lower().split()) & {"a", "the", "is", "."}
    full = assistant.answer("what shape is this?", [shape], settings=Settings(32))
    assert full.text[0].isupper() and full.text.endswith(".") and full.clean_up != "off"


def test_several_people_at_once_get_their_own_answers(assistant: Assistant, shape: Image.Image) -> None:
    questions: dict[str, tuple[Image.Image, ...]] = {
        "What is the capital of France?": (),
        "What is the capital of Australia?": (),
        "what color is the rectangle?": (shape,),
    }
    alone = {asked: assistant.answer(asked, seen, settings=SHORT).text for asked, seen in questions.items()}
    assert "Paris" in alone["What is the capital of France?"]
    got: list[tuple[str, str]] = []

    def ask(question: str) -> None:
        got.append((question, assistant.answer(question, questions[question], settings=SHORT).text))

    threads = [threading.Thread(target=ask, args=(question,)) for question in [*questions, *questions][:4]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == len(threads)
    for question, answer in got:
        assert answer == alone[question]


def test_the_shell_reports_mistakes_plainly(
    assistant: Assistant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shape.png").write_bytes(b"broken")
    monkeypatch.setattr("vlm.__main__.load_assistant", lambda *_: assistant)
    monkeypatch.setattr(sys, "argv", ["vlm", "what color is it?", "--image", str(tmp_path / "shape.png")])
    with pytest.raises(SystemExit, match="^vlm: "):
        main()
