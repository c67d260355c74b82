"""Two images of any files on one grid, and the shift between them."""
