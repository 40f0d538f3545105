"""The page: three conversation tabs over one assistant, a tab to search in pictures, one about the model, and the endpoints
for programs."""

from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from vlm.chat.assistant import Assistant
from vlm.model.about import about, how_to_see
from vlm.model.adapter_folder import PLOT
from vlm.serving.assets import ASSETS, from_here
from vlm.serving.conversation_tab import ConversationTab
from vlm.serving.endpoints import QuestionEndpoints, publish
from vlm.serving.events import MAX_EVENTS, MODEL, QUEUED
from vlm.serving.messages import file_address
from vlm.serving.plain_errors import PlainBlocks, plainly
from vlm.serving.search_endpoints import publish_search
from vlm.serving.search_tab import SearchTab
from vlm.serving.serving import Serving
from vlm.serving.settings_panel import personal_panel, settings_panel, show_settings
from vlm.serving.tabs import conversation_tabs

TITLE = "Ask a picture"
IN_ENGLISH = '<p class="foreign">Questions about pictures are understood best, and answered, in English.</p>'
HEADER = """<header>
<button type="button" data-action="show-list" aria-label="Conversations" title="Conversations">☰</button>
<div><h1>{title}</h1><p>{description}</p></div>
<button type="button" data-action="dark" aria-label="Dark or light" title="Dark or light">◐</button>
<button type="button" data-action="show-settings" aria-label="Settings" title="Settings">⚙</button></header>"""


def build_app(serving: Serving, switchable: bool = True) -> gr.Blocks:
    """The whole page. It writes nothing down of what is said: conversations and indexes belong to the sessions.

    `switchable`: whoever sees it may change the preset, for all."""
    gr.set_static_paths([ASSETS / "examples"])  # served as they are; copies go with old uploads
    # Made outside of the page, they are placed on it one by one; an update cannot hold `render=False`.
    header, notice, cannot_see, in_english, card, plot = views = views_of(serving.assistant)
    with PlainBlocks(title=TITLE, analytics_enabled=False, fill_width=True, fill_height=True) as page:
        with gr.Sidebar(elem_id="list", open=False, width=288):
            listed = (ASSETS / "page" / "list.html").read_text(encoding="utf-8")
            gr.HTML(html_template=listed, js_on_load="page.list(element)", apply_default_css=False)
        header.render()
        notice.render()
        settings = settings_panel(serving.assistant.settings)
        personal = personal_panel(serving.assistant.config.speech.language)
        with gr.Tabs(overflow_behavior="wrap", elem_id="tabs") as tabs:
            built = {}
            for tab in conversation_tabs(ASSETS / "examples"):
                with gr.Tab(tab.name, id=tab.name):
                    if tab.pictures:
                        cannot_see.render()
                        in_english.render()
                    built[tab.name] = ConversationTab(serving, tab, [*settings, *personal])
            with gr.Tab("Search", id="Search") as search:
                SearchTab(serving, search, built["Image"], tabs)
            with gr.Tab("About this model", elem_id="about"):
                if switchable:
                    show_switch(page, serving, views)
                card.render()
                plot.render()
        with gr.Sidebar(elem_id="settings", position="right", open=False, width=336):
            show_settings(page, settings, personal)
        publish(QuestionEndpoints(serving), settings)
        publish_search(serving)
    return page.queue(max_size=MAX_EVENTS)


@cache
def serve_file(file: Path) -> None:
    """Once: Gradio goes through all that it was ever given at each file that it serves."""
    gr.set_static_paths([file])


def views_of(assistant: Assistant) -> list[Any]:
    """What depends on the model: the header, a notice, what to do about a model that cannot see, that it sees in English
    (where the page is in another language), the card and the plot of its adapter. They are placed on the page, or are
    updates of those that were."""
    folder, plot = assistant.adapter_folder, ""
    if folder and (folder / PLOT).is_file():
        serve_file(folder / PLOT)
        source = file_address(str(from_here(folder / PLOT)))
        image = f'<img class="plot" src="{source}" alt="Loss and learning rates in training">'
        plot = f"<details><summary>Curves of the training</summary>{image}</details>"
    notice = f'<p class="notice">{escape(assistant.notice)}</p>' if assistant.notice else ""
    sees = folder is not None
    return [
        gr.HTML(
            HEADER.format(title=TITLE, description=escape(assistant.description)), apply_default_css=False
        ),
        gr.HTML(notice, visible=bool(notice)),
        gr.Markdown(
            how_to_see(assistant.config.name), visible=not sees and not assistant.config.remote_adapter
        ),
        gr.HTML(IN_ENGLISH, visible=sees),
        gr.Markdown(about(assistant.config, folder)),
        gr.HTML(plot, visible=bool(plot)),
    ]


def show_switch(page: gr.Blocks, serving: Serving, views: list[Any]) -> None:
    """The choice of a preset. It waits for its turn like a question, so that no answer is cut off."""
    with gr.Row(elem_classes="switch"):
        preset = gr.Dropdown(
            # Which of them run here is known in a moment. Gradio takes no other choice than these from a page whose session
            # it has lost, after a sleep or by two events that began it at once.
            serving.model.named_presets,
            value=serving.model.preset,
            label="Preset",
            info="Another preset answers everyone who uses this page, once the questions under way are answered. "
            "Conversations stay.",
            interactive=False,  # until `offer` has said what is served; it would take a choice back
            scale=4,
        )
        change = gr.Button("Use this preset")

    def offer() -> Any:
        return gr.update(choices=serving.model.presets, value=serving.model.preset, interactive=True)

    def show() -> list[Any]:
        return views_of(serving.assistant)

    changed = change.click(
        plainly(serving.switch), preset, None, show_progress_on=preset, api_visibility="private", **MODEL
    )
    # at the start too: another visitor may have switched; and where no model is loaded, one can still be chosen
    for happened in (page.load, changed.success, changed.failure):
        happened(plainly(offer), None, preset, **QUEUED)
        happened(plainly(show), None, views, **QUEUED)
