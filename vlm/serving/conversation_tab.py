"""One conversation tab: its components, and which handler each of their events calls."""

from pathlib import Path
from typing import Any

import gradio as gr

from vlm.chat.conversation import Conversation, Exchange
from vlm.serving.events import ALWAYS, MODEL, QUEUED, UNQUEUED
from vlm.serving.keeping import Keeping
from vlm.serving.looking import Looking
from vlm.serving.plain_errors import plainly
from vlm.serving.questions import Questions
from vlm.serving.serving import Serving
from vlm.serving.tabs import Tab
from vlm.serving.voting import Voting

# What assets/page/ sends here: the events of the bar, by their names.
CONNECT = """page.connect({element, trigger, props, upload, watch}, ["spoken", "suggested", "again", "go_on", "edit",
    "leave", "turn", "opened", "fresh", "looked", "close", "voted", "arranged", "attached"])"""
SPEAK = """<div class="bar"><button type="button" data-action="speak" aria-pressed="false"
    title="One click starts, the next one sends">Speak</button>
    <label><input type="checkbox" data-setting="handsFree"> Hands-free</label>"""
NOTE = """<span class="bar-foot"><span class="bar-note" role="status"></span>
    <button type="button" data-action="drop" hidden>Cancel</button></span></div>"""
VOICE = """<label class="choose-recording">Choose a recording
    <input type="file" accept="audio/*" data-action="recording"></label>
    <label><input type="checkbox" data-setting="readAlways"> Always read aloud</label>
    <label>Voice <select data-setting="voice"><option value="">The browser's own</option></select></label>"""


class ConversationTab:
    """To be made inside `gr.Blocks`. `settings` are the components of the settings."""

    def __init__(self, serving: Serving, tab: Tab, settings: list[gr.components.Component]) -> None:
        self.tab, self.settings = tab, settings
        self.conversation = gr.State(Conversation())
        self.chat = gr.Chatbot(
            label=f"{tab.name} conversation",
            show_label=False,
            elem_classes="conversation",
            height="100%",
            autoscroll=False,  # assets/page/chat.js follows an answer, unless the person has scrolled up
            buttons=[],
            placeholder=tab.invitation,
            examples=[{"text": _caption(each), "files": each.files} for each in tab.examples],  # type: ignore[typeddict-item]
        )
        self.questions = Questions(serving, tab)
        self.keeping = Keeping(self.questions)
        with gr.Column(elem_classes="composer", scale=0):
            self._build_composer()
        self._wire_questions()
        self._wire_keeping()
        self.bar.voted(
            plainly(Voting(serving).vote),
            [self.conversation, self.bar],
            [self.chat, self.bar],
            **QUEUED | {"trigger_mode": "multiple"},
        )
        if tab.pictures:
            looks = self.bar.looked(
                Looking(serving).look,
                [self.conversation, self.bar],
                self.looked,
                show_progress="hidden",
                **ALWAYS,
                **MODEL,
            )
            closes = self.bar.close(None, None, None, cancels=[looks], api_visibility="private")
            closes.then(lambda: "", None, self.looked, **UNQUEUED)

    def _build_composer(self) -> None:
        self.notice = gr.HTML(visible=False, apply_default_css=False)
        self.looked = gr.HTML(apply_default_css=False, elem_classes="look" if self.tab.pictures else None)
        if self.tab.pictures:
            photo = gr.Image(
                label="Camera",
                show_label=False,
                sources=["webcam"],
                type="filepath",
                visible=False,
                elem_classes="camera",
            )
        self.question = gr.MultimodalTextbox(
            label="Question",
            show_label=False,
            placeholder=self.tab.prompt,
            visible=self.tab.typed,
            autofocus=self.tab.pictures,
            sources=["upload"] if self.tab.pictures else [],
            file_types=["image", "audio"],
            file_count="multiple",
            max_plain_text_length=10**9,  # pasted text stays text, however long
        )
        with gr.Row(elem_classes="toolbar"):
            template = SPEAK + ("" if self.tab.typed else VOICE) + NOTE
            self.bar = gr.HTML(
                "", html_template=template, js_on_load=CONNECT, tab=self.tab.name, apply_default_css=False
            )
            self.stop = gr.Button("Stop answering", size="sm", visible=False, elem_classes="stop-answer")
            if self.tab.pictures:
                camera = gr.Button("Camera", size="sm")
            self.similar = gr.Button("Similar pictures", size="sm", visible=self.tab.pictures)
        if self.tab.pictures:
            self._wire_camera(camera, photo)
            self.bar.attached(
                plainly(self.questions.read_ahead), [self.conversation, self.question], None, **UNQUEUED
            )
            self.bar.arranged(None, self.question, self.question, js="page.arranged", **UNQUEUED)

    def _wire_camera(self, button: gr.Button, photo: gr.Image) -> None:
        """The button opens and closes the camera, whose photo joins the question in the box."""
        is_shown = gr.State(False)
        turned = button.click(
            lambda is_open: (not is_open, gr.update(visible=not is_open)),
            is_shown,
            [is_shown, photo],
            **UNQUEUED,
        )
        turned.then(None, js="page.startCamera", **UNQUEUED)
        add = self.questions.add_photo
        photo.input(add, [photo, self.question], [photo, is_shown, self.question], **UNQUEUED)

    def _wire_questions(self) -> None:
        questions, conversation = self.questions, self.conversation
        self.page = [self.chat, self.question, self.stop, self.notice, self.bar]
        asked = {questions.show: self._asked_in_the_box(), questions.show_beside: self._asked_elsewhere()}
        taken_down = [(each, show) for show, events in asked.items() for each in events]
        for each, _ in taken_down:
            each.failure(questions.notice, conversation, self.notice, **UNQUEUED)
        shown = [each.success(show, conversation, self.page, **UNQUEUED) for each, show in taken_down]
        answers = [
            each.success(
                questions.answer,
                conversation,
                [self.chat, self.bar],
                show_progress="hidden",
                **ALWAYS,
                **MODEL,
            )
            for each in shown
        ]
        stops = gr.on([self.stop.click, self.question.stop], None, cancels=answers, api_visibility="private")
        stops.then(questions.settle, [conversation, self.question], self.page, **UNQUEUED)
        for each in answers:
            each.success(questions.settle_finished, [conversation, self.question], self.page, **UNQUEUED)

    def _asked_in_the_box(self) -> list[Any]:
        """The events that ask what stands in the composer, which is empty then."""
        questions, conversation, copy, settings = self.questions, self.conversation, self.bar, self.settings
        refusing = questions.refusing
        return [
            self.question.submit(
                refusing(questions.ask), [conversation, self.question, copy, *settings], **QUEUED
            ),
            self.bar.spoken(
                refusing(questions.ask_spoken), [conversation, self.question, copy, *settings], **QUEUED
            ),
        ]

    def _asked_elsewhere(self) -> list[Any]:
        """The events that ask something else, and leave what is typed where it is."""
        questions, conversation, copy, settings = self.questions, self.conversation, self.bar, self.settings
        refusing = questions.refusing
        return [
            self.bar.suggested(refusing(questions.ask_suggested), [conversation, copy, *settings], **QUEUED),
            self.bar.again(refusing(questions.ask_again), [conversation, copy, *settings], **QUEUED),
            self.bar.go_on(refusing(questions.go_on), [conversation, copy], **QUEUED),
            self.chat.example_select(refusing(questions.ask_example), [conversation, *settings], **QUEUED),
        ]

    def _wire_keeping(self) -> None:
        keeping, conversation = self.keeping, self.conversation
        for listen, handler, inputs in (
            (self.bar.opened, keeping.open, [conversation, self.question]),
            (self.bar.fresh, keeping.start_over, [conversation]),
            (self.bar.turn, keeping.turn, [conversation, self.bar]),
            (self.bar.edit, keeping.edit, [conversation, self.question, self.bar]),
            (self.bar.leave, keeping.leave_as_it_was, [conversation, self.bar]),
        ):
            listen(plainly(handler), inputs, self.page, **QUEUED)


def _caption(example: Exchange) -> str:
    """How an example is named. A recording's file is named by what it says, which stands in quotes: it is said in English,
    whatever the page's language."""
    words = Path(example.recording or "").stem.replace("-", " ")
    caption = example.question or f"{words[:1].upper()}{words[1:]}?"
    return f"“{caption}”" if example.recording else caption
