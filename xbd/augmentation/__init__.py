"""How a sample may differ from what the scene shows: geometry that both images and the mask share, and light."""
