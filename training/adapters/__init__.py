"""What training.finetune learns from: conversations out of rows, and the tags of its pictures."""
