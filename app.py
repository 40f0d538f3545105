"""Start the page and the API: python app.py

The environment chooses what is served and where: VLM_PRESET, VLM_ADAPTER, HOST, PORT and the rest of deploy/README.md. A
Space of Hugging Face starts this file as it is; whoever owns the Space chooses its one preset.
"""

import logging
import os
import signal
import sys

import vlm.serving.gradio_import  # noqa: F401, I001  # before those that import Gradio
from vlm import UserError, load_assistant
from vlm.serving.accounts import Accounts, read_accounts
from vlm.serving.environment import ServerSettings, base_folder, read_environment
from vlm.serving.launch import Site, check_port, serve
from vlm.serving.page import build_app
from vlm.serving.serving import Serving
from vlm.serving.uploads import Uploads, own_uploads
from vlm.serving.zero_gpu import borrow_gpu

try:
    import spaces  # before anything uses CUDA
except ImportError:
    spaces = None


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # Stopped while it loads, it cleans up as at Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        settings = read_environment(os.environ)
        check_port(settings.host, settings.port)
        accounts = read_accounts(settings.auth) if settings.auth else None
        with own_uploads(base_folder(os.environ), settings.uploads_mb * 2**20) as uploads:
            run(settings, accounts, uploads)
    except UserError as error:
        sys.exit(f"app.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def run(settings: ServerSettings, accounts: Accounts | None, uploads: Uploads) -> None:
    assistant = load_assistant(settings.preset, settings.adapter)
    serving = Serving(assistant, settings)
    if spaces and spaces.config.Config.zero_gpu:
        borrow_gpu(assistant, spaces)
    else:
        serving.warm_up()
    # Visitors did not choose the preset, and ZeroGPU takes weights at the start only.
    page = build_app(serving, switchable=not settings.public)
    serve(Site(page, serving, uploads, accounts))


if __name__ == "__main__":
    main()
