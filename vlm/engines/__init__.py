"""What runs a language model: a prompt of token ids and visual tokens -> streamed text."""
