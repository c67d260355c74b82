"""Training: the loop, what of a run outlives it, and the processes that train together."""
