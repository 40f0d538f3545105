"""What evaluate.py, compare.py and report.py are made of: questions chosen, answered, measured, and shown."""
