"""`python -m components.pytorchjob`: training as a job in a cluster, see `components.cluster.command`."""

from components.cluster.command import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
