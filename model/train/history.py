"""What a run says of itself: a record an epoch, on disk and in the log, and a line a minute where nobody sees a bar."""

import csv
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from base.files import new_file

Record = dict[str, float]
MINUTE = 60.0  # seconds


class Meter:
    """Sums over the steps of an epoch, from which its record is made; they outlive a resume in mid-epoch."""

    def __init__(self, sums: dict[str, float] | None = None) -> None:
        self.sums = dict(sums or {})
        self._last_line = self._last_step = time.perf_counter()

    def add(self, **values: float) -> None:
        """Adds the values of a step."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def waited(self) -> float:
        """Seconds since `stepped`: what the step waited for its batch."""
        return time.perf_counter() - self._last_step

    def stepped(self) -> float:
        """Ends a step; seconds since the one before ended."""
        now = time.perf_counter()
        seconds, self._last_step = now - self._last_step, now
        return seconds

    def record(self, device: torch.device) -> Record:
        """Means over the steps; shares and rates over their time."""
        s, steps = self.sums, self.sums["steps"]
        return {
            **{name: s[name] / steps for name in ("loss", "loss_localization", "loss_damage", "gradient_norm")},
            "pairs_per_second": s["pairs"] / s["seconds"],
            "data_wait_share": s["waited"] / s["seconds"],
            "checkpoint_pause": s.get("checkpoint_pause", 0.0),
            "peak_memory_gb": peak_memory(device),
        }

    def say(self, text: str) -> None:
        """Prints what the steps so far came to, at most once a minute and only where no progress bar is drawn."""
        if sys.stderr.isatty() or time.perf_counter() - self._last_line < MINUTE:
            return
        self._last_line = time.perf_counter()
        rate = self.sums["pairs"] / self.sums["seconds"]
        print(f"{text}  loss {self.sums['loss'] / self.sums['steps']:.4f}  {rate:.2f} pairs/s", flush=True)


def peak_memory(device: torch.device) -> float:
    """Most memory so far in GB: of the GPU's allocator, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def best_record(history: Sequence[Record]) -> Record:
    """The record whose weights are kept; of equal scores the later, and without validation the last."""
    return max(history, key=lambda record: (record.get("validation_score", -1.0), record["epoch"]))


def validations_without_progress(history: Sequence[Record]) -> int:
    """How many validations came after the first with the best score: one that only equals it is no progress."""
    scores = [record["validation_score"] for record in history if "validation_score" in record]
    return len(scores) - 1 - scores.index(max(scores)) if scores else 0


def write_history(path: Path, history: Sequence[Record]) -> None:
    """The epochs' records as CSV, one line an epoch; epochs without validation leave its columns empty."""
    columns = list(dict.fromkeys(key for record in history for key in record))
    with new_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)


def describe_record(record: Record, epochs: int) -> str:
    """An epoch in one line of the log."""
    text = (
        f"epoch {record['epoch']:.0f}/{epochs}  loss {record['loss']:.4f} (localization "
        f"{record['loss_localization']:.4f}, damage {record['loss_damage']:.4f})  learning rate "
        f"{record['learning_rate']:.5f}  {record['pairs_per_second']:.2f} pairs/s"
    )
    if "validation_score" in record:
        text += (
            f"  validation score {record['validation_score']:.4f} (localization F1 "
            f"{record['validation_localization_f1']:.4f}, damage F1 {record['validation_damage_f1']:.4f})"
        )
    return text
