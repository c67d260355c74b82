"""From the official archives, or folders of them, to a checked raw data set."""
