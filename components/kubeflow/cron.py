"""Schedules in the usual five fields of cron, checked, and as Kubeflow Pipelines reads them."""

import re
from collections.abc import Mapping

from components.kubeflow.client import KubeflowError

FIELDS: tuple[tuple[str, int, int, str], ...] = (
    ("minute", 0, 59, ""),
    ("hour", 0, 23, ""),
    ("day of the month", 1, 31, ""),
    ("month", 1, 12, "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC"),
    ("day of the week", 0, 6, "SUN MON TUE WED THU FRI SAT"),
)


def with_seconds(cron: str) -> str:
    """A cron expression of the usual five fields as Kubeflow reads them, which is behind a field of seconds.

    Raises KubeflowError. Source: https://pkg.go.dev/github.com/robfig/cron#hdr-CRON_Expression_Format
    """
    fields = cron.split()
    if len(fields) != len(FIELDS):
        raise KubeflowError(
            f"--cron {cron!r}: has {len(fields)} fields, expected the 5 of {', '.join(row[0] for row in FIELDS)}. "
            "Give such as '0 3 * * 1', Mondays at 3:00."
        )
    for text, (name, low, high, words) in zip(fields, FIELDS, strict=True):
        numbers = {word: str(number) for number, word in enumerate(words.split(), low)}
        if not all(_is_cron(part, low, high, numbers) for part in text.upper().split(",")):
            known = f"{low}-{high}" + (f" or {words.split()[0]}-{words.split()[-1]}" if words else "")
            raise KubeflowError(
                f"--cron {cron!r}: {name} is {text!r}, expected *, {known}, A-B, A,B or */N. Correct it."
            )
    return " ".join(["0", *fields])


def _is_cron(part: str, low: int, high: int, numbers: Mapping[str, str]) -> bool:
    found = re.fullmatch(r"(?:\*|(\w+)(?:-(\w+))?)(?:/([1-9]\d*))?", part)
    ends = [numbers.get(end, end) for end in found.groups()[:2] if end is not None] if found else []
    if not found or not all(re.fullmatch("[0-9]+", end) for end in ends):
        return False
    return all(low <= int(end) <= high for end in ends) and sorted(ends, key=int) == ends
