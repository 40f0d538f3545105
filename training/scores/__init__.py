"""The parts of evaluate.py, compare.py and report.py: questions are chosen, asked, scored and shown."""
