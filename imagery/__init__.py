"""Pairs of georeferenced images of any size: from files to a map of damaged buildings."""
