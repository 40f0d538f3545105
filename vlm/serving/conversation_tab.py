"""One conversation tab: its components, and which handler of `Questions` each of their events calls."""

from typing import Any

import gradio as gr

from vlm.chat.conversation import Conversation
from vlm.serving.events import ALWAYS, AT_ONCE, MAY_REFUSE
from vlm.serving.plain_errors import plainly
from vlm.serving.questions import Questions
from vlm.serving.settings_panel import SettingsPanel
from vlm.serving.switch import Serving
from vlm.serving.tabs import Tab

DOWNLOAD = """text => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], {type: "text/markdown"}));
    link.download = "conversation.md";
    link.click();
    URL.revokeObjectURL(link.href);
}"""


class ConversationTab:
    """To be made inside `gr.Blocks`. `model` are the options of an event that uses the model."""

    def __init__(self, serving: Serving, tab: Tab, settings: SettingsPanel, model: dict[str, Any]) -> None:
        self.tab, self.settings = tab, settings
        self.conversation = gr.State(Conversation())
        self.chat = gr.Chatbot(
            label=f"{tab.name} conversation",
            show_label=False,
            elem_classes="conversation",
            height="max(20rem, 100dvh - 25rem)",
            render_markdown=False,
            latex_delimiters=[],
            editable="user",
            group_consecutive_messages=False,  # or editing a question that came with a picture fails
            buttons=["copy"],
            placeholder=tab.invitation,
            examples=[{"text": each.caption, "files": each.files} for each in tab.examples],  # type: ignore[typeddict-item]
        )
        self.questions = Questions(serving, tab, self.chat.temp_files)
        self._build_composer()
        with gr.Row(elem_classes="toolbar"):
            self.stop = gr.Button("Stop answering", size="sm", interactive=False, visible=not tab.typed)
            self.download = gr.Button("Download conversation", size="sm")
            self.similar = gr.Button("Similar pictures", size="sm", visible=tab.pictures)
        self.downloaded = gr.Textbox(visible=False)
        self._wire_questions(model)
        self._wire_tools()

    def _build_composer(self) -> None:
        self.question = gr.MultimodalTextbox(
            label="Question",
            show_label=False,
            placeholder=self.tab.prompt,
            visible=self.tab.typed,
            sources=["upload", "microphone"] if self.tab.pictures else [],
            file_types=["image", "audio"],
            file_count="multiple",
            max_plain_text_length=10**9,  # pasted text stays text, however long
        )
        self.recording = gr.Audio(
            label="Spoken question",
            visible=not self.tab.typed,
            sources=["microphone", "upload"],
            type="filepath",
            editable=False,
            buttons=[],
        )
        if self.tab.pictures:
            with gr.Accordion("Camera", open=False):
                photo = gr.Image(label="Camera", show_label=False, sources=["webcam"], type="filepath")
            add = self.questions.add_photo
            photo.input(add, [photo, self.question], [photo, self.question], **AT_ONCE)

    def _wire_questions(self, model: dict[str, Any]) -> None:
        questions, conversation = self.questions, self.conversation
        page = [self.chat, self.question, self.stop]
        shown = [
            each.success(questions.show, conversation, [*page, self.recording], **AT_ONCE)
            for each in self._taken_down()
        ]
        answers = [
            each.success(questions.answer, conversation, self.chat, **ALWAYS, **model) for each in shown
        ]
        stops = gr.on([self.stop.click, self.question.stop], None, cancels=answers, api_visibility="private")
        stops.then(questions.settle, [conversation, self.question], page, **AT_ONCE)
        for each in answers:
            each.success(questions.settle_finished, [conversation, self.question], page, **AT_ONCE)
        clears = self.chat.clear(None, cancels=answers, api_visibility="private")
        clears.then(questions.clear, conversation, page, **AT_ONCE)
        self.chat.undo(plainly(questions.undo), [conversation, self.question], page, **MAY_REFUSE)

    def _taken_down(self) -> list[Any]:
        """The events that ask a question."""
        questions, conversation, settings = self.questions, self.conversation, self.settings
        spoken = [self.recording.stop_recording, self.recording.upload]
        return [
            gr.on(
                [self.question.submit] if self.tab.typed else spoken,
                plainly(questions.ask),
                [conversation, self.question, self.recording, *settings],
                **MAY_REFUSE,
            ),
            self.chat.example_select(plainly(questions.ask_example), [conversation, *settings], **MAY_REFUSE),
            self.chat.retry(plainly(questions.ask_again), [conversation, *settings], **MAY_REFUSE),
            self.chat.edit(plainly(questions.ask_edited), [conversation, *settings], **MAY_REFUSE),
        ]

    def _wire_tools(self) -> None:
        written = self.download.click(self.questions.write, self.conversation, self.downloaded, **AT_ONCE)
        written.then(None, self.downloaded, js=DOWNLOAD, **AT_ONCE)
