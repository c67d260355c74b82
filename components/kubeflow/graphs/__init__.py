"""The graphs that pipeline.py knows: the training of a model, and the map of a disaster."""
