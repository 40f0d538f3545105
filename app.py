"""Start the page and the API: python app.py

The environment chooses what is served and where: VLM_PRESET, VLM_ADAPTER, HOST and PORT; VLM_API_KEY lets others use the
API. A Space of Hugging Face starts this file as it is; whoever owns the Space chooses its one preset.
"""

import logging
import os
import sys
import threading

from vlm import UserError, load_assistant
from vlm.serving.launch import serve
from vlm.serving.openai.access import access_of
from vlm.serving.openai.routes import openai_routes
from vlm.serving.page import build_app
from vlm.serving.switch import Serving
from vlm.serving.zero_gpu import borrow_gpu

try:
    import spaces  # before anything uses CUDA
except ImportError:
    spaces = None


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    chosen = os.environ.get
    preset, adapter = chosen("VLM_PRESET") or "embedded", chosen("VLM_ADAPTER") or None
    host = chosen("HOST") or chosen("GRADIO_SERVER_NAME") or "127.0.0.1"  # a Space sets the second
    port = int(chosen("PORT") or chosen("GRADIO_SERVER_PORT") or "7860")
    try:
        assistant = load_assistant(preset, adapter)
    except UserError as error:
        sys.exit(f"app.py: {error}")
    if spaces and spaces.config.Config.zero_gpu:
        borrow_gpu(assistant, spaces)
    else:
        threading.Thread(target=assistant.warm_up, name="warm up", daemon=True).start()
    # Visitors of a Space did not choose its preset, and ZeroGPU takes weights at the start only.
    serving = Serving(assistant, preset, adapter)
    page = build_app(serving, switchable="SPACE_ID" not in os.environ)
    serve(page, host, port, openai_routes(serving, access_of(os.environ, host)))


if __name__ == "__main__":
    main()
