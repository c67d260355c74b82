"""The steps as tasks of Kubeflow Pipelines, and the client that submits them."""
