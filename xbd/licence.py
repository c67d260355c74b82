"""Under which licence scenes are, as far as the names of their disasters tell it."""

from collections.abc import Iterable
from typing import NamedTuple

from xbd.names import SAMPLE

XBD = "CC-BY-NC-SA-4.0"  # by SPDX, https://spdx.org/licenses/
# Source: Gupta et al., https://arxiv.org/abs/1911.09296, table 2.
DISASTERS = (
    "guatemala-volcano", "hurricane-florence", "hurricane-harvey", "hurricane-matthew", "hurricane-michael",
    "joplin-tornado", "lower-puna-volcano", "mexico-earthquake", "midwest-flooding", "moore-tornado", "nepal-flooding",
    "palu-tsunami", "pinery-bushfire", "portugal-wildfire", "santa-rosa-wildfire", "socal-fire", "sunda-tsunami",
    "tuscaloosa-tornado", "woolsey-fire",
)  # fmt: skip


class Licence(NamedTuple):
    """said: for people, a sentence for each kind of scenes; spdx: the identifier that covers all of them, None where
    there is no such one or it is not known.
    """

    said: tuple[str, ...]
    spdx: str | None


def licence_of(disasters: Iterable[str]) -> Licence:
    """The licence of the scenes of these disasters."""
    names = sorted(set(disasters))
    synthetic = [name for name in names if name.startswith(SAMPLE)]
    xbd = [name for name in names if name in DISASTERS]
    others = [name for name in names if name not in (*synthetic, *xbd)]
    said = []
    if xbd:
        said.append(
            f"xBD ({', '.join(xbd)}): CC BY-NC-SA 4.0, not for commercial use; what is made of it is under the same"
        )
    if synthetic:
        said.append(f"synthetic scenes ({', '.join(synthetic)}): drawn by this project, with no data of others")
    if others:
        said.append(f"{', '.join(others)}: unknown, nobody recorded it")
    if not names:
        said.append("unknown: nobody recorded the scenes")
    return Licence(tuple(said), XBD if xbd and not others else None)
