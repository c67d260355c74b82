"""A map as others find it and take it on: its item for a catalog, and its numbers."""
