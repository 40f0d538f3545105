"""What is said: a question and its history -> a streamed answer with its trace."""
