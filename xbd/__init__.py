"""The data set: xBD labels, masks, scenes, crops, and a synthetic sample in the same layout."""
