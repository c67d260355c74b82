"""Training as a TrainJob of Kubeflow Trainer 2, on JobSet."""
