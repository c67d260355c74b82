"""Training as a job in a cluster: what is asked for, and who brings it there."""
