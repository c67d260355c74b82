"""The one door to MLflow: the connection, runs, the registry, and what a version was built from."""
