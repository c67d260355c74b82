"""Exit codes by which a process of the training asks to be started again, beside those of signals (128 + number)."""

PEERS_LOST = 141  # as of a process that a broken connection ended: 128 + SIGPIPE
HUNG = 142  # as of a process that an alarm ended: 128 + SIGALRM
# SIGINT, SIGABRT (NCCL ends so), SIGBUS (no shared memory is left), SIGKILL, SIGSEGV, SIGTERM. Nothing else becomes
# better by another try: not a wrong parameter, which is 1, nor an instruction that the processor lacks (SIGILL, 132).
RESTARTABLE = frozenset({130, 134, 135, 137, 139, PEERS_LOST, HUNG, 143})
