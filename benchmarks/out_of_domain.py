"""Whether scenes of events that a model never saw lie farther from its training data than scenes of known events.

python -m benchmarks.out_of_domain --data PREPARED --model DIR

PREPARED holds events out of training (split out_of_event), and DIR is a model that was trained on its split train. Of
each scene of the splits test and out_of_event the distance is taken, as predict takes it of a map, and of the distances
the AUROC: 0.5 tells nothing, 1 tells every scene of a new event from every scene of a known one.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import rankdata
from torch.utils.data import DataLoader

from base.errors import errors_in_one_line
from model.calibration.domain import Distance, Domain, distance_in_colours, distance_in_features, summarize
from model.inference import load_model
from xbd.dataset import Scenes


def auroc(known: Sequence[float], new: Sequence[float]) -> float:
    """The share of pairs in which the new one lies farther away, ties counted as half."""
    ranks = rankdata([*known, *new])[len(known) :]
    return float((ranks.sum() - len(new) * (len(new) + 1) / 2) / (len(known) * len(new)))


def measure(data: Path, model: Path) -> str:
    """A line for each respect, and one of how many scenes it is of."""
    network = load_model(model)

    def domain_of(scenes: Scenes) -> Domain:
        gsd, off_nadir = ([getattr(record, name) for record in scenes.records] for name in ("gsd", "off_nadir_angle"))
        return summarize(network, DataLoader(scenes), gsd, off_nadir, lambda: None)

    trained, others = Scenes(data, ["train"]), Scenes(data, ["test", "out_of_event"])
    events = {record.disaster for record in trained.records}
    is_new = np.array([record.disaster not in events for record in others.records])
    known, own = domain_of(trained), domain_of(others)
    lines = [
        f"{len(trained)} scenes of {', '.join(sorted(events))}: {(~is_new).sum()} others, {is_new.sum()} of new events"
    ]
    for name, distance in (("features", distance_in_features), ("colours", distance_in_colours)):
        found: list[Distance] = []
        for number in range(len(others)):
            one = distance(getattr(known, name), getattr(own, name)[number : number + 1])
            assert one is not None, "fewer scenes than a distance needs"
            found.append(one)
        far, unlike = np.array([one.distance for one in found]), np.array([one.is_unlike for one in found])
        lines.append(
            f"{name}: AUROC {auroc(far[~is_new].tolist(), far[is_new].tolist()):.2f}; called unlike: "
            f"{unlike[~is_new].sum()} known, {unlike[is_new].sum()} new"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints what was measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.out_of_domain", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="PREPARED")
    parser.add_argument("--model", type=Path, required=True, metavar="DIR")
    arguments = parser.parse_args(argv)
    with errors_in_one_line():
        print(measure(arguments.data, arguments.model))


if __name__ == "__main__":
    main()
