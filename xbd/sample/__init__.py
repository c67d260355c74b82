"""The synthetic sample: a small data set in xBD's layout, and how its scenes are drawn."""
