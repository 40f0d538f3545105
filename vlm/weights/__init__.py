"""A weight's name -> verified local files."""
