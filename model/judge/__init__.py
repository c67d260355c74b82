"""How good a model is: scores, calibration, matched buildings, and the report of it all."""
