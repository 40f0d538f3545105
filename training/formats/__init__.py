"""What convert.py is made of: a reader for each format, records to rows, and rows to shards."""
