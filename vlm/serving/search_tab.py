"""The Search tab: its components, and which handler of `Searches` each of their events calls."""

import gradio as gr

from vlm.serving.conversation_tab import ConversationTab
from vlm.serving.events import ALWAYS, EMBEDDING, QUEUED, SEARCHING, UNQUEUED
from vlm.serving.plain_errors import plainly
from vlm.serving.searches import INVITATION, Searches, SearchSession, report_line
from vlm.serving.serving import Serving

DOWNLOAD = """file => {
    const link = document.createElement("a");
    link.href = file.url;
    link.download = "pictures.safetensors";
    link.click();
}"""


# A gallery that shows one picture large goes on doing so with other pictures, whatever its update says
ALL_AT_ONCE = """() => document.querySelector(".found .preview .top-panel button:last-of-type")?.click()"""
# Once Gradio has drawn them; the one that is looked at stays open, and with it its button
SETTLED = f"""() => setTimeout(() => {{
    document.querySelector("#told").textContent = document.querySelector(".report")?.textContent || "";
    if (!document.querySelector(".ask-about")?.offsetParent) ({ALL_AT_ONCE})();
}}, REDRAWN)"""
IN_SIGHT = f"""() => {{
    ({ALL_AT_ONCE})();
    document.querySelector(".find")?.scrollIntoView({{behavior: "smooth"}});
}}"""


class SearchTab:
    """To be made inside its `gr.Tab`. `images` is the Image tab, and `tabs` holds them all."""

    def __init__(self, serving: Serving, tab: gr.Tab, images: ConversationTab, tabs: gr.Tabs) -> None:
        self.session = gr.State(SearchSession())
        self.notice = gr.HTML(visible=False)
        self._build_choice()
        self._build_search()
        self._build_classification()
        self.searches = Searches(serving)
        tab.select(self.searches.look_whether_it_loads, None, self.notice, **QUEUED)
        self._wire_choice()
        self._wire_search(images, tabs)
        self._wire_classification()

    def _build_choice(self) -> None:
        self.files = gr.File(label="Pictures, or a zip of them", file_count="multiple", height=140)
        self.report = gr.HTML(report_line(INVITATION))
        with gr.Row(elem_classes="toolbar"):
            self.folder = gr.UploadButton("Choose a folder", size="sm", file_count="directory")
            self.stop = gr.Button("Stop", size="sm", interactive=False)
            self.again = gr.Button("Start over", size="sm")
            self.save = gr.Button("Save the index", size="sm")
            self.load = gr.UploadButton("Load an index", size="sm", file_types=[".safetensors"])
        self.saved = gr.File(visible=False)

    def _build_search(self) -> None:
        self.words = gr.Textbox(
            label="Find",
            info="In English.",
            placeholder="A dog on a beach",
            submit_btn="Search",
            elem_classes="find",
        )
        with gr.Accordion("Search by a picture", open=False) as self.by_picture:
            self.picture = gr.Image(
                label="Picture to search by", type="filepath", sources=["upload", "clipboard"], height=200
            )
        self.gallery = gr.Gallery(
            label="Pictures",
            show_label=False,
            elem_classes="found",
            columns=4,
            height="36rem",
            visible=False,
            object_fit="contain",
            interactive=False,
            buttons=["fullscreen"],
        )
        self.ask = gr.Button(
            "Ask about this picture", variant="primary", visible=False, elem_classes="ask-about"
        )

    def _build_classification(self) -> None:
        with gr.Accordion("Which of these names fits a picture?", open=False), gr.Row():
            with gr.Column():
                self.named = gr.Image(
                    label="Picture to name", type="filepath", sources=["upload", "clipboard"], height=240
                )
                self.names = gr.Textbox(
                    label="Names, separated by commas", info="In English.", placeholder="cat, dog, bird"
                )
                self.classify = gr.Button("Compare the names")
            self.label = gr.Label(label="How likely", num_top_classes=10)

    def _wire_choice(self) -> None:
        searches, session = self.searches, self.session
        page = [self.report, self.stop, self.gallery, self.ask]
        taken = [
            each.upload(searches.take, [session, each], [self.report, self.stop, self.files], **UNQUEUED)
            for each in (self.files, self.folder)
        ]
        embedded = [
            each.success(searches.embed, session, self.report, show_progress="hidden", **ALWAYS, **EMBEDDING)
            for each in taken
        ]
        for each in embedded:
            settled = each.then(plainly(searches.settle), session, page, **UNQUEUED)
            settled.then(None, js=SETTLED, **UNQUEUED)
        stopped = self.stop.click(None, cancels=embedded, api_visibility="private")
        stopped.then(plainly(searches.stop), session, page, **UNQUEUED)
        cleared = self.again.click(None, cancels=embedded, api_visibility="private")
        cleared.then(plainly(searches.start_over), session, [*page, self.words, self.picture], **UNQUEUED)
        written = self.save.click(plainly(searches.save), session, self.saved, **QUEUED)
        written.success(None, self.saved, js=DOWNLOAD, **UNQUEUED)
        self.load.upload(plainly(searches.load), [session, self.load], page, **QUEUED)

    def _wire_search(self, images: ConversationTab, tabs: gr.Tabs) -> None:
        searches, session = self.searches, self.session
        found = gr.on(
            [self.words.submit, self.picture.upload],
            plainly(searches.find),
            [session, self.words, self.picture],
            [self.gallery, self.ask, self.by_picture],
            api_visibility="private",
            **SEARCHING,
        )
        found.success(None, js=IN_SIGHT, **UNQUEUED)
        self.gallery.select(plainly(searches.choose), session, self.ask, **UNQUEUED)
        self.ask.click(
            plainly(searches.ask_about), [session, images.question], [images.question, tabs], **QUEUED
        )
        similar = images.similar.click(
            plainly(searches.find_similar),
            [session, images.conversation, images.question],
            [self.gallery, self.ask, self.by_picture, self.words, self.picture, tabs],
            **QUEUED,
        )
        similar.success(None, js=IN_SIGHT, **UNQUEUED)

    def _wire_classification(self) -> None:
        gr.on(
            [self.classify.click, self.names.submit],
            plainly(self.searches.compare),
            [self.named, self.names],
            self.label,
            api_visibility="private",
            **SEARCHING,
        )
