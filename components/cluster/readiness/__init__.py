"""Whether a cluster has what a run needs, asked before the first one: `make kube-check`."""
