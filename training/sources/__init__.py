"""One module per data source: a downloaded package in, a list of `Picture` out; nothing is decoded yet."""
