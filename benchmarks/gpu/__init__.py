"""What a GPU computes, and how fast: needs torch, numpy, OpenCV, pydantic, safetensors and tqdm, and nothing else."""
