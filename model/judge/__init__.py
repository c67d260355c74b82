"""How good a model is: scores, matched buildings, and the report of it all."""
