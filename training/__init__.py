"""Data, training and evaluation of adapters; `vlm` never imports from here."""

import vlm  # noqa: F401  (which quiets bitsandbytes, before anything else imports it)
