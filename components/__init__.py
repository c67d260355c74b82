"""The steps of the pipeline: each is a typed function with a command line."""
