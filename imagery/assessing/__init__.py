"""A map and what people judged of it, brought together: estimates, a regraded map, and a page about both."""
