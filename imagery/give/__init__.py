"""What is given to people: rasters, vector files, a summary, a page."""
