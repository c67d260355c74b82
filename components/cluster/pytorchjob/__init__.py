"""Training as a PyTorchJob of Kubeflow's training operator."""
