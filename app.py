"""Start the page and the API: python app.py

The environment chooses what is served and where: VLM_PRESET, VLM_ADAPTER, HOST, PORT and the rest of deploy/README.md. A
Space of Hugging Face starts this file as it is; whoever owns the Space chooses its one preset.
"""

import logging
import os
import sys
import threading

from vlm import UserError, load_assistant
from vlm.serving.environment import read_environment
from vlm.serving.launch import check_port, serve
from vlm.serving.page import build_app
from vlm.serving.switch import Serving
from vlm.serving.zero_gpu import borrow_gpu

try:
    import spaces  # before anything uses CUDA
except ImportError:
    spaces = None


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        settings = read_environment(os.environ)
        check_port(settings.host, settings.port)
        assistant = load_assistant(settings.preset, settings.adapter)
    except UserError as error:
        sys.exit(f"app.py: {error}")
    if spaces and spaces.config.Config.zero_gpu:
        borrow_gpu(assistant, spaces)
    else:
        threading.Thread(target=assistant.warm_up, name="warm up", daemon=True).start()
    serving = Serving(assistant, settings.preset, settings.adapter)
    # Visitors did not choose the preset, and ZeroGPU takes weights at the start only.
    serve(build_app(serving, switchable=not settings.public), serving, settings)


if __name__ == "__main__":
    main()
