"""Whether a registered version may become production, and how the alias moves."""
