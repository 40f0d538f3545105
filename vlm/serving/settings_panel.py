"""The settings on the page, which are also the endpoints' optional arguments."""

from typing import Any, NamedTuple

import gradio as gr

from vlm.chat.answer import Settings, Style

STYLES = [("Sentences", "full"), ("Keywords", "keywords")]
LARGEST_SEED = 2**32 - 1


class SettingsPanel(NamedTuple):
    """The components, in the order of `settings_from`."""

    max_new_tokens: gr.Slider
    temperature: gr.Slider
    clean_up: gr.Checkbox
    style: gr.Radio
    top_p: gr.Slider
    min_p: gr.Slider
    repetition_penalty: gr.Slider
    seed: gr.Number


def settings_from(
    max_new_tokens: float,
    temperature: float,
    clean_up: bool,
    style: Style,
    top_p: float,
    min_p: float,
    repetition_penalty: float,
    seed: float,
) -> Settings:
    """What the page's components and JSON give, as the assistant takes it."""
    return Settings(
        max_new_tokens=int(max_new_tokens),
        temperature=float(temperature),
        clean_up=clean_up,
        style=style,
        top_p=float(top_p),
        min_p=float(min_p),
        repetition_penalty=float(repetition_penalty),
        seed=int(seed),
    )


def settings_panel(defaults: Settings) -> SettingsPanel:
    """The components with their defaults. `show_settings` places them, below the tabs that read them."""
    hidden: dict[str, Any] = {"render": False}
    return SettingsPanel(
        gr.Slider(16, 512, defaults.max_new_tokens, step=1, label="Longest answer, in tokens", **hidden),
        gr.Slider(0, 1.5, defaults.temperature, step=0.1, label="Temperature", **hidden),
        gr.Checkbox(defaults.clean_up, label="Clean up answers about pictures", **hidden),
        gr.Radio(STYLES, value=defaults.style, label="Answer style", **hidden),
        gr.Slider(0.05, 1, defaults.top_p, step=0.05, label="Top-p", info="Considers the likeliest tokens that "
                  "together reach this probability.", **hidden),
        gr.Slider(0, 1, defaults.min_p, step=0.01, label="Min-p", info="Considers tokens that are at least this "
                  "likely, compared with the likeliest.", **hidden),
        gr.Slider(1, 2, defaults.repetition_penalty, step=0.05, label="Repetition penalty", info="1 is none.", **hidden),
        gr.Number(defaults.seed, precision=0, minimum=0, maximum=LARGEST_SEED, label="Seed", info="Another seed "
                  "draws another answer.", **hidden),
    )  # fmt: skip


def show_settings(panel: SettingsPanel) -> None:
    with gr.Accordion("Settings", open=False):
        with gr.Row():
            panel.max_new_tokens.render()
            panel.temperature.render()
        panel.style.render()
        panel.clean_up.render()
        with gr.Accordion("Advanced", open=False):
            gr.Markdown("Top-p, min-p and the seed matter where the temperature is above 0.")
            with gr.Row():
                panel.top_p.render()
                panel.min_p.render()
            with gr.Row():
                panel.repetition_penalty.render()
                panel.seed.render()
