"""Scenes of any size as GeoTIFF: from the imagery of a disaster to a map of its buildings. Knows local files only."""
