"""The record of a decision about the alias of a model: tags of the version, and files in its run."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from components.promotion.gate import Row, Scored, table
from components.tracking.lineage import who

if TYPE_CHECKING:
    from components.tracking.registry import ModelVersion


PROMOTED, UNCHANGED = "promoted", "unchanged"  # verdicts that `promote` returns


@dataclass(frozen=True)
class Decision:
    """What is decided about `version` and `alias`, why, by whom, and what it is based on.

    previous: the version that the alias points to when the decision is made.
    verdict: PROMOTED, or UNCHANGED where the alias points to the version already; empty while it is not decided.
    rows, scored: the comparison, and the scores of the version. is_dry_run: whether nothing moves and nothing is kept.
    """

    version: "ModelVersion"
    alias: str
    previous: "ModelVersion | None"
    verdict: str = ""
    reason: str = ""
    rows: Sequence[Row] = ()
    scored: Scored | None = None
    approved_by: str | None = None
    is_dry_run: bool = False
    by: str = field(default_factory=who)

    def record(self, verdict: str, reason: str) -> None:
        """Keeps the decision: promotion/TIME/promotion.json and table.txt in the run, then the tags promotion,
        promotion_by and promotion_at. Raises TrackingError.
        """
        from components.tracking import registry

        now = datetime.now(UTC)
        at = now.isoformat(timespec="seconds")
        notes = {row.name: row.words for row in self.rows if row.words is not None}
        content: Mapping[str, object] = {
            "model": self.version.name,
            "version": int(self.version.version),
            "alias": self.alias,
            "previous": None if self.previous is None else int(self.previous.version),
            "verdict": verdict,
            "reason": reason,
            "by": self.by,
            "at": at,
            "approved_by": self.approved_by,
            "prepared_version": None if self.scored is None else self.scored.prepared_version,
            "evaluate_settings": None if self.scored is None else self.scored.settings,
            "rows": [asdict(row) | {"passes": row.passes} for row in self.rows if row.words is None],
            "trained_on": notes.get("trained on"),
            "absent_grades": notes.get("absent grades"),
        }
        folder = f"promotion/{now:%Y%m%dT%H%M%S.%fZ}"
        texts = {f"{folder}/promotion.json": json.dumps(content, indent=2) + "\n"}
        if self.rows:
            texts[f"{folder}/table.txt"] = table(self.rows) + "\n"
        registry.log_texts(self.version, texts)
        tags = {"promotion": f"{verdict}: {reason}", "promotion_by": self.by, "promotion_at": at}
        registry.tag_version(self.version, tags)
