"""An adapter with its language model -> folders that other programs load: Transformers, vLLM, llama.cpp, Ollama."""
