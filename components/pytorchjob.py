"""`python -m components.pytorchjob`: training as a PyTorchJob, see `components.cluster.pytorchjob.launcher`."""

from components.cluster.pytorchjob.launcher import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
