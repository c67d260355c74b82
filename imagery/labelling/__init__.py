"""From a map that people judged to scenes to train on, in xBD's raw layout."""
