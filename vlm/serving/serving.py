"""Who is answered now, and in which order.

Every question passes through `Serving.stream`, from whichever route it comes: the page, the API, MCP, /v1.
"""

from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from threading import Condition
from typing import Any, TypeVar

from vlm.chat.answer import Answer, Picture, Settings, Turn
from vlm.chat.assistant import Assistant
from vlm.chat.feedback import MEGABYTE, FeedbackFolder
from vlm.chat.reply import with_last
from vlm.inputs.speech import Heard
from vlm.serving.ahead import LOOK_UP_SECONDS, Ahead, Work
from vlm.serving.allowance import Allowance
from vlm.serving.callers import Caller, current_caller
from vlm.serving.environment import ServerSettings
from vlm.serving.gate import Gate, Ticket
from vlm.serving.limits import NotNow
from vlm.serving.measures import Measures
from vlm.serving.shared_searcher import SharedSearcher
from vlm.serving.switch import LoadedModel
from vlm.serving.thumbs import notice_of

WAITING_EACH = 2  # questions of one person, where the page is public
RECORDINGS_AT_ONCE = 2  # so that a short one need not wait for one of ten minutes
LOOKS_AT_ONCE = 1  # each takes both cores for a minute
STOPPING = "The server is being stopped and takes no more questions. Please try again in a minute."
CUT_OFF = "The server is being stopped, and the answer ends here. Please try again in a minute."
WAITS_SECONDS = 30.0  # for its question, a picture in a composer
CUT_OFF_SECONDS = 5.0  # for the next token, at which an answer ends

Snapshots = Generator[Answer, None, None]
Seen = TypeVar("Seen")


class Serving:
    """`assistant` is that of the settings' preset and adapter."""

    def __init__(self, assistant: Assistant, settings: ServerSettings | None = None) -> None:
        self.settings = settings or ServerSettings()
        self.model = LoadedModel(assistant, self.settings.preset, self.settings.adapter)
        self._gate = Gate(lambda: self.model.parallel)
        self._speech, self._looks = Gate(lambda: RECORDINGS_AT_ONCE), Gate(lambda: LOOKS_AT_ONCE)
        self.measures, self.searcher = Measures(), SharedSearcher()
        self._stopping = self._out_of_time = False
        self._under_way, self._ended = 0, Condition()
        self.allowance = Allowance(self.settings)
        self._ahead = Ahead(self._while_idle, over=lambda: self._stopping)
        self.feedback: FeedbackFolder | None = None
        if self.settings.feedback:
            self.feedback = FeedbackFolder(self.settings.feedback, self.settings.feedback_mb * MEGABYTE)

    @property
    def assistant(self) -> Assistant:
        """To ask about, not to ask: questions go through `stream`, which a change of the model waits for. Raises NotNow."""
        return self.model.assistant

    @property
    def ready(self) -> bool:
        """Whether there is a model that takes questions."""
        return self.model.loaded and not self._stopping

    @property
    def waiting(self) -> int:
        return self._gate.waiting + self._speech.waiting + self._looks.waiting

    @property
    def answering(self) -> int:
        return self._gate.answering + self._speech.answering

    @property
    def seconds_a_question(self) -> float:
        """What an answer took lately."""
        return self._gate.seconds_each

    def stream(
        self,
        question: str,
        images: Sequence[Picture] = (),
        audio: str | None = None,
        history: Sequence[Turn] = (),
        settings: Settings | None = None,
        begun: str = "",
    ) -> Snapshots:
        """`Assistant.stream` when it is this question's turn; until then, every now and then, an answer in the stage
        "waiting", so that it can be closed while it waits. It ends when whoever asked is gone."""
        looks = images or any(turn.images for turn in history)
        route = "image" if looks else "voice" if audio is not None else "text"
        admitted = self._admitted(len(images), audio is not None)
        with admitted as caller, self.measures.question(route) as measured:
            heard = None
            if audio is not None:
                heard = yield from self._hear(caller, audio, settings.language if settings else "")
                # Whatever happens to the question from here on, its words are known
                yield Answer(stage="transcribing", transcript=heard.text)
            ask = (question, images, heard, history, settings, begun)
            with closing(self._in_turn(caller, lambda assistant: assistant.stream(*ask))) as snapshots:
                for snapshot in snapshots:
                    measured.tokens = snapshot.tokens
                    yield replace(snapshot, transcript=heard.text) if heard is not None else snapshot

    def read_ahead(
        self, asker: Hashable, images: Sequence[Picture], history: Callable[[], Sequence[Turn]]
    ) -> None:
        """`Assistant.read_ahead` as soon as nobody is answered, unless `asker` has newer pictures by then, or asks
        (`no_more_ahead`). `history` is asked for then. Raises TryLater."""
        self.allowance.take_ahead(len(images))
        self._ahead.wish(asker, lambda assistant: assistant.read_ahead(images, history()), WAITS_SECONDS)

    def no_more_ahead(self, asker: Hashable) -> None:
        self._ahead.forget(asker)

    def warm_up(self) -> None:
        """`Assistant.warm_up`, as soon as nobody is answered."""
        self._ahead.wish("warm up", lambda assistant: assistant.warm_up())

    def _while_idle(self, work: Work, enough: Callable[[], bool]) -> bool:
        """Work until somebody comes, or it is `enough`; whether it was all done. What was read of a prompt stays."""
        if self.waiting or self.answering or (ticket := self._gate.enter_idle()) is None:
            return False
        try:
            with self._counted():
                if not self.ready:
                    return False
                with closing(work(self.assistant)) as steps:  # type: ignore[type-var]
                    for _ in steps:
                        if self._stopping or self.waiting or self.answering or enough():
                            return False
                return True
        finally:
            self._gate.leave(ticket)

    def look(
        self, looks: Callable[[Assistant], Iterator[Seen]], pictures: int
    ) -> Generator[Seen | Answer, None, None]:
        """Whatever else is seen of pictures, in a question's place and order: until it is its turn, answers in the stage
        "waiting". It ends when whoever asked is gone."""
        with self._admitted(pictures) as caller:
            ticket = yield from self._turn(self._looks, caller)
            try:
                yield from self._in_turn(caller, looks)
            finally:
                self._looks.leave(ticket)

    @contextmanager
    def _admitted(self, pictures: int = 0, spoken: bool = False) -> Iterator[Caller]:
        """Who asks now, until they have their answer. Raises NotNow or TryLater where they may not."""
        with self._counted():  # before it is asked whether the server stops, or `stop` could miss it
            if self._stopping:
                raise NotNow(STOPPING)
            self.allowance.take(pictures, spoken)
            yield current_caller()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """What happens within is under way, and `stop` waits for it."""
        with self._ended:
            self._under_way += 1
        try:
            yield
        finally:
            with self._ended:
                self._under_way -= 1
                self._ended.notify_all()

    def _wait_for_all(self, seconds: float) -> bool:
        """Whether all that was under way has ended within that time."""
        with self._ended:
            return self._ended.wait_for(lambda: not self._under_way, seconds)

    def _in_turn(
        self, caller: Caller, work: Callable[[Assistant], Iterator[Seen]]
    ) -> Generator[Seen | Answer, None, None]:
        ticket = yield from self._turn(self._gate, caller)
        try:
            self._check(caller)
            with closing(work(self.assistant)) as steps:  # type: ignore[type-var]
                for each in steps:
                    yield each
                    self._check(caller)
        finally:
            self._gate.leave(ticket)

    def _turn(self, gate: Gate, caller: Caller) -> Generator[Answer, None, Ticket]:
        """Wait for one of the places behind a gate, which whoever gets it is to leave."""
        ticket = gate.line_up(caller.person, self.settings.max_waiting, self._most_each)
        try:
            while not gate.enter(ticket, LOOK_UP_SECONDS):
                self._check(caller)
                yield waiting(gate.seconds_left(ticket))
        except BaseException:  # also GeneratorExit: closed while it waits
            gate.leave(ticket)
            raise
        return ticket

    def _check(self, caller: Caller) -> None:
        """Raises NotNow or NobodyListens where the answer is not to go on."""
        caller.check()
        if self._out_of_time:
            raise NotNow(CUT_OFF)

    def transcribe(self, audio: str, language: str = "") -> Generator[Heard | None, None, None]:
        """What is said in a recording; until it is its turn, None every now and then. `language` as in `Settings`."""
        with (
            self._admitted(spoken=True) as caller,
            closing(with_last(self._hear(caller, audio, language))) as hearing,
        ):
            for each in hearing:
                yield each if isinstance(each, Heard) else None

    @property
    def feedback_notice(self) -> str:
        """What the page says at the thumbs; "" where there are none."""
        return notice_of(self.feedback.folder.name) if self.feedback else ""

    def _hear(self, caller: Caller, audio: Any, language: str = "") -> Generator[Answer, None, Heard]:
        """What is said in a recording. It takes no place of the model: ten minutes of speech are half a minute of work."""
        ticket = yield from self._turn(self._speech, caller)
        try:
            yield Answer(stage="transcribing")
            heard = self.assistant.hear(audio, language)
        finally:
            self._speech.leave(ticket)
        self.allowance.charge_speech(caller.person, heard.audio_seconds)
        return heard

    @property
    def _most_each(self) -> int | None:
        return WAITING_EACH if self.settings.public else None

    def stop(self) -> bool:
        """Take no more questions, and let the answers under way end; whatever does not end within the time that is set is
        cut off and says so. Whether all did."""
        self._stopping = True
        if self._wait_for_all(self.settings.stop_seconds):
            return True
        self._out_of_time = True
        self._wait_for_all(CUT_OFF_SECONDS)
        return False

    def switch(self, preset: str) -> None:
        """Serve another preset, once the answers under way are given. Raises UserError where it cannot be."""
        self.model.check(preset)
        with self._counted(), self._speech.alone(), self._gate.alone():
            try:
                self.model.change(preset)
            finally:
                self.warm_up()


def waiting(seconds: float) -> Answer:
    """A snapshot of an answer that has not begun. `seconds["wait"]` is about how long it will be until it does."""
    return Answer(stage="waiting", seconds={"wait": seconds})
