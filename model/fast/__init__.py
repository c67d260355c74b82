"""The network made fast for inference, with the same results."""
