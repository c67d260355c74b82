"""How sure a model is, how often it is right, and the temperatures that make the two equal."""
