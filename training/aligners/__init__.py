"""What training.align is made of: pairs, the contrastive loss, its trainer, validation and plots."""
