"""What all other packages stand on: errors, files that appear whole, images."""
