"""What sees and reads: encoder, connector, prompts, and the adapter folder that holds what was trained."""
