"""A small model of one event: what judgements teach about the buildings that nobody judged."""
