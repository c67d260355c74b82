"""Single buildings in the predicted classes, or those of a map that is given."""
