"""Data, training and evaluation of adapters; `vlm` never imports from here."""
