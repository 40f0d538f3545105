"""How questions and answers are worded: templates, phrases, inflection, names of colours."""
