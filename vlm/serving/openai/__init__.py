"""The page's model as an OpenAI-compatible endpoint under /v1, for programs that speak that language."""
