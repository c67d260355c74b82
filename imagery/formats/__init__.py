"""Formats of a map that mapping teams take on, on request: other vector formats, a STAC item, tiles of the images."""
