"""A map made in shards, by processes or machines of their own: planned, predicted, merged."""
