"""The settings on the page, of which most are also the endpoints' optional arguments."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import gradio as gr

from vlm.chat.answer import LARGEST_SEED, LONGEST_QUESTION, Settings
from vlm.inputs.languages import LANGUAGES
from vlm.serving.arguments import flag_of, number_of, whole_of
from vlm.serving.events import UNQUEUED
from vlm.serving.plain_errors import range_of
from vlm.serving.translations import translated

STYLES = [("Sentences", "full"), ("Keywords", "keywords")]
SPEECH_LANGUAGES = [("Find out", "auto"), *((name, code) for code, name in LANGUAGES.items())]
CLOSE = '<button type="button" class="close-sidebar" data-action="show-settings">Close</button>'
API = '<button type="button" class="api" data-action="api">Use via API</button>'


class SettingsPanel(NamedTuple):
    """The components, in the order of `checked_settings`."""

    max_new_tokens: gr.Slider
    temperature: gr.Slider
    clean_up: gr.Checkbox
    style: gr.Radio
    top_p: gr.Slider
    min_p: gr.Slider
    repetition_penalty: gr.Slider
    seed: gr.Number


class PersonalPanel(NamedTuple):
    """What only the page offers, behind the others in `settings_from`."""

    system: gr.Textbox
    language: gr.Dropdown


CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "max_new_tokens": whole_of,
    "temperature": number_of,
    "clean_up": flag_of,
    "top_p": number_of,
    "min_p": number_of,
    "repetition_penalty": number_of,
    "seed": whole_of,
}  # the style is checked by `Settings`


def checked_settings(preset: Settings, *values: Any) -> Settings:
    """What a program sends, in the order of `SettingsPanel`; None is as in the `preset`. Raises UserError."""
    given = {
        name: CHECKS[name](value, name) if name in CHECKS else value
        for name, value in zip(SettingsPanel._fields, values, strict=True)
        if value is not None
    }
    return replace(preset, **given)


def settings_from(*values: Any) -> Settings:
    """What the page's components give, those of `SettingsPanel` and then of `PersonalPanel`, as the assistant takes it."""
    length, *shared, system, language = values
    checked = checked_settings(Settings(), int(length), *shared)  # a fraction can be typed beside a slider
    return replace(checked, system=(system or "").strip() or None, language=language or "")


def settings_panel(defaults: Settings) -> SettingsPanel:
    """The components with their defaults. `show_settings` places them."""
    hidden: dict[str, Any] = {"render": False}
    return SettingsPanel(
        _slider(16, 512, defaults.max_new_tokens, step=1, label="Longest answer, in tokens"),
        _slider(0, 1.5, defaults.temperature, step=0.1, label="Temperature", info="0 takes the likeliest "
                "words; higher values vary them."),
        gr.Checkbox(defaults.clean_up, label="Clean up answers about pictures", **hidden),
        gr.Radio(STYLES, value=defaults.style, label="Answer style", **hidden),
        _slider(0.05, 1, defaults.top_p, step=0.05, label="Top-p", info="Considers the likeliest tokens that "
                "together reach this probability."),
        _slider(0, 1, defaults.min_p, step=0.01, label="Min-p", info="Considers tokens that are at least this "
                "likely, compared with the likeliest."),
        _slider(1, 2, defaults.repetition_penalty, step=0.05, label="Repetition penalty", info="1 is none."),
        gr.Number(defaults.seed, precision=0, minimum=0, maximum=LARGEST_SEED, label="Seed", info="Another seed "
                  "draws another answer.", **hidden),
    )  # fmt: skip


def _slider(least: float, most: float, value: float, **shown: Any) -> gr.Slider:
    """From `least` to `most`, and as far as the preset's own value, which the page sends until it is moved."""
    return gr.Slider(min(least, value), max(most, value), value, render=False, **shown)


def personal_panel(language: str | None) -> PersonalPanel:
    """`language` is what is spoken, as the preset says; None to find out."""
    return PersonalPanel(
        gr.Textbox(label="Instructions", info="How to answer, for instance: in French, in one sentence. They hold for "
                   "questions without a picture.", lines=2, max_lines=8, max_length=LONGEST_QUESTION, render=False),
        gr.Dropdown(SPEECH_LANGUAGES, value=language or "auto", label="Language of speech", render=False),
    )  # fmt: skip


def show_settings(page: gr.Blocks, panel: SettingsPanel, personal: PersonalPanel) -> None:
    """Places the components; the browser keeps their values and gives them back to its next page."""
    gr.HTML(CLOSE, apply_default_css=False)
    gr.Markdown("## Settings")
    personal.system.render()
    panel.style.render()
    panel.max_new_tokens.render()
    panel.temperature.render()
    personal.language.render()
    panel.clean_up.render()
    with gr.Accordion("Advanced", open=False):
        gr.Markdown("Top-p, min-p and the seed matter where the temperature is above 0.")
        for component in (panel.top_p, panel.min_p, panel.repetition_penalty, panel.seed):
            component.render()
    reset = gr.Button("Reset", size="sm")
    gr.Markdown("Kept in this browser.")
    gr.HTML(API, apply_default_css=False)
    _keep(page, [*panel, *personal], reset)
    page.load(_spoken, None, personal.language, **UNQUEUED)


def _spoken(request: gr.Request) -> dict[str, Any]:
    """Gradio shows a chosen text where assets/page/translate.js does not reach it."""
    accepted = request.headers.get("accept-language", "")
    return gr.update(choices=[(translated(accepted, name), code) for name, code in SPEECH_LANGUAGES])


def _keep(page: gr.Blocks, components: list[Any], reset: gr.Button) -> None:
    """All in the browser (assets/page/settings.js): an answer of the server would come late, over what was typed in the
    meantime."""
    defaults = json.dumps([component.value for component in components])
    ranges = json.dumps([range_of(component) for component in components])
    page.load(None, None, components, js=f"() => page.readSettings({defaults}, {ranges})", **UNQUEUED)
    reset.click(None, None, components, js=f"() => page.resetSettings({defaults})", **UNQUEUED)
    # Not `change`, which comes before they are read too
    changes = [component.input for component in components]
    write = f"(...values) => page.writeSettings(values, {ranges})"
    gr.on(changes, None, components, js=write, **UNQUEUED)
