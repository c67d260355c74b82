"""Which buildings a person judges, and in which order: a probability sample that may stop at any time."""
