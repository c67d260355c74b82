"""The tasks of the graph `map`: a plan, its shards, the map of them, and where that goes."""
