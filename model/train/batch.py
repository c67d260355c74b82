"""How the batch of a step is shared among processes: arithmetic that needs no process to run, nor torch."""

from base.errors import InputError


class WorldError(InputError):
    """Processes that cannot train together."""


def share_of_batch(global_batch_size: int, device_batch_size: int, world_size: int) -> int:
    """Passes that each process makes for a step: global batch = device batch x processes x passes.

    Raises WorldError where the three do not fit.
    """
    passes, remainder = divmod(global_batch_size, device_batch_size * world_size)
    if not remainder:
        return passes
    processes = f"{world_size} process{'es' if world_size > 1 else ''}"
    if global_batch_size % world_size:
        # Worlds for the device batch as it is, if it divides the batch at all.
        shared = global_batch_size // (device_batch_size if global_batch_size % device_batch_size == 0 else 1)
        remedy = f"No value of train.device_batch_size fits; numbers of processes that do: {_divisors(shared)}."
    else:
        fitting = _divisors(global_batch_size // world_size)
        remedy = f"Values of train.device_batch_size that fit {processes}: {fitting}."
    raise WorldError(
        f"train.global_batch_size: {global_batch_size} is not a multiple of train.device_batch_size "
        f"{device_batch_size} x {processes}. {remedy}"
    )


def _divisors(number: int) -> str:
    return ", ".join(str(i) for i in range(1, number + 1) if number % i == 0)
