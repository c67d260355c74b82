"""The network over imagery of any size, window by window."""
