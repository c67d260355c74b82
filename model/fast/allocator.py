"""How the C library deals with freed memory, as far as it costs time or memory on a CPU."""

import ctypes

# From malloc.h of glibc; -1 as the value turns trimming off.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGEST_FROM_HEAP = 1 << 30  # bytes


def keep_freed_memory() -> None:
    """Lets this process keep what it frees and use it again, instead of giving it back to the kernel.

    By default glibc gives the activations of each training step back, and the next step pays for the kernel to clear
    every page anew: measured with W32 on two 512 x 512 pairs, 0.8 million page faults and a sixth of the CPU time, see
    docs/benchmarks.md. A turned sample of 512 x 512 takes 7 CPU ms instead of 17, also where it is read for a GPU. The
    shapes of training repeat, so that peak memory stays within a tenth. Prediction does not call it: it gains a
    twentieth, and held 1.58 against 1.14 GB after 60 images of varied sizes.
    Source: https://man7.org/linux/man-pages/man3/mallopt.3.html. Does nothing with another C library.
    """
    _set({_M_TRIM_THRESHOLD: -1, _M_MMAP_THRESHOLD: _LARGEST_FROM_HEAP})


def share_one_heap() -> None:
    """Lets threads that start from now on take memory from one heap, instead of a heap for each.

    Heaps of threads that read keep what tiles left there: without this the peak of a scene of 8,192 pixels was 5 to
    12 % above that of one of 2,048, and differed by as much from run to run. Does nothing with another C library.
    """
    _set({_M_ARENA_MAX: 1})


def give_back_freed_memory() -> None:
    """Returns to the kernel what this process has freed. Does nothing with another C library than glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _set(options: dict[int, int]) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in options.items():
            mallopt(option, value)
