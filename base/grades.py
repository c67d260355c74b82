"""The damage grades of xBD's Joint Damage Scale: their numbers in masks, their names, and their colours.

Source of names and order: Gupta et al., https://arxiv.org/abs/1911.09296, table 1.
"""

from dataclasses import dataclass

BACKGROUND, UNCLASSIFIED = 0, 255  # values of a mask beside the grades


@dataclass(frozen=True)
class Grade:
    """One of the four grades. number: in masks. subtype: in labels. paper: RGB of the paper's figures.

    line: RGB of outlines on images, of Okabe and Ito's colours, which people of all kinds of colour vision tell apart
    (https://jfly.uni-koeln.de/color/). dashes: of the outline, for those who see no colours; "" is a solid line.
    """

    number: int
    subtype: str
    paper: tuple[int, int, int]
    line: str
    dashes: str

    @property
    def key(self) -> str:
        """The name in columns and metrics: no_damage."""
        return self.subtype.replace("-", "_")

    @property
    def label(self) -> str:
        """The name for people: no damage."""
        return self.subtype.replace("-", " ")


GRADES = (
    Grade(1, "no-damage", (255, 255, 255), "#56b4e9", ""),
    Grade(2, "minor-damage", (255, 255, 0), "#f0e442", "1 3"),
    Grade(3, "major-damage", (255, 140, 0), "#e69f00", "7 3"),
    Grade(4, "destroyed", (255, 0, 0), "#cc79a7", ""),
)
KEYS = tuple(grade.key for grade in GRADES)
SUBTYPES = {grade.subtype: grade.number for grade in GRADES} | {"un-classified": UNCLASSIFIED}
# What each value of a mask is called, and its colour in the figures of the paper (figure 2).
LEGEND: dict[int, tuple[str, tuple[int, int, int]]] = {
    BACKGROUND: ("background", (0, 0, 0)),
    **{grade.number: (grade.label, grade.paper) for grade in GRADES},
    UNCLASSIFIED: ("un-classified", (128, 128, 128)),
}
