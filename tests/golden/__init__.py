"""Golden files: one set for each version of the format, kept for ever, with the outputs they must give."""
