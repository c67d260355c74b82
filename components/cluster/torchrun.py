"""torchrun with exit codes that an orchestrator understands: `python -m components.launch [TORCHRUN ARGUMENTS] -m
components.train ...` takes what torchrun takes, and torchrun's environment.

torchrun itself ends with 1 and a traceback when it is asked to stop, and Kubeflow's `restartPolicy: ExitCode` starts a
pod again from code 128 on only: a preempted training would count as failed. What another try cannot mend ends below
128.
"""

import sys
from collections.abc import Sequence

from base.command_line import RESTARTABLE
from base.errors import errors_in_one_line


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the processes; ends with 128 + the signal that ended it, or with the code of the process that failed."""
    from model.device import require_gpu

    with errors_in_one_line():  # one line of the node, not one of each process
        require_gpu()

    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    arguments = run.parse_args(list(sys.argv[1:] if argv is None else argv))  # type: ignore[no-untyped-call]
    try:
        run.run(arguments)  # type: ignore[no-untyped-call]
    except SignalException as error:
        sys.exit(128 + error.sigval)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        # A process that a signal ended has the negative of its number.
        code = failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
        if code >= 128 and code not in RESTARTABLE:
            print(f"rank {rank} ended with exit code {code}, as it would again", file=sys.stderr)
            code = 1
        sys.exit(code)
