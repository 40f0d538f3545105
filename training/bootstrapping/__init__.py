"""What training.bootstrap keeps: captions that an aligner finds to match."""
