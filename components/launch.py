"""`python -m components.launch`, which the pods of training jobs run: torchrun, see `components.cluster.torchrun`."""

from components.cluster.torchrun import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
