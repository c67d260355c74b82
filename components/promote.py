"""Step promote: moves the alias "production" to a registered version, if it passes the gate of params.yaml."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from components.cli import errors_in_one_line, read_params, step_parser
from components.evaluate import evaluate
from components.events.gate import alias_for, compare_events, decide_event
from components.events.names import EVENTS
from components.params import PromoteParams
from components.promotion.approval import CODE, GIVEN, Approval, Request, asked, tag_of, wait_for_approval
from components.promotion.decision import PROMOTED, UNCHANGED, Decision
from components.promotion.gate import GateError, Row, Scored, compare, decide, notes, scored, table
from components.promotion.handover import CHALLENGER, PRODUCTION, HandoverError, hand_over, previous
from components.promotion.rescoring import Rescoring, keep_scores, known_scores, rescore
from components.storage.locations import LOCATIONS

if TYPE_CHECKING:
    from components.tracking.registry import ModelVersion

ALIAS = re.compile(r"(?!latest$)(?!v[0-9]+$)[A-Za-z0-9_-]+", re.IGNORECASE)  # those that MLflow takes


def promote(
    name: str,
    params: PromoteParams,
    *,
    alias: str | None = None,
    version: int | None = None,
    to: str | None = None,
    rescoring: Rescoring | None = None,
    approval: Approval | None = None,
    dry_run: bool = False,
    on_comparison: Callable[[Sequence[Row]], object] = lambda rows: None,
) -> Decision:
    """Makes the version of that alias or number production. Nothing moves where the gate stays shut.

    to: the alias that moves; by default production, or that of the event where the version is a model of one, which can
    be no other and has a gate of its own, `components.events.gate`. rescoring: how production is scored where its
    scores do not compare with the version's.
    approval: wait for a person, after the gate. dry_run: only compare; nothing is written anywhere.
    on_comparison: gets the rows before the gate decides, so that a person can read them before an approval.
    Returns what was decided and why; the version and its run carry it too.
    Raises TrackingError where there is no such version, GateError where the gate refuses, HandoverError where another
    promotion came between, and what evaluate raises.
    """
    from components.tracking import registry

    candidate = registry.require_version(name, alias=alias, version=version)
    is_of_event = name == EVENTS
    to = alias_for(candidate.version, candidate.tags, to) if is_of_event else to or PRODUCTION
    production = registry.find_version(name, alias=to)
    if production is not None and production.version == candidate.version:
        return Decision(candidate, to, production, UNCHANGED, is_dry_run=dry_run)
    decision = Decision(candidate, to, production, is_dry_run=dry_run)
    try:
        if is_of_event:
            current = None if production is None else (production.version, production.tags)
            rows = compare_events(candidate.version, candidate.tags, current)
        else:
            found = scored(candidate.version, candidate.tags)
            decision = replace(decision, scored=found)
            known = None if production is None else _comparable(production, found, rescoring, dry_run)
            rows = [
                *compare(found, known, params),
                *notes(candidate.tags, None if production is None else production.tags),
            ]
        decision = replace(decision, rows=rows)
        on_comparison(rows)
        reason = decide_event(rows) if is_of_event else decide(rows, params)
        if dry_run:
            return replace(decision, verdict=PROMOTED, reason=reason)
        if approval is not None:
            request = Request(candidate, to, production, rows)
            decision = replace(decision, approved_by=wait_for_approval(request, approval))
            reason += f"; approved by {decision.approved_by}"
        hand_over(name, to, production, candidate, lambda: decision.record("moving", reason))
    except (GateError, HandoverError) as error:
        if not dry_run:
            decision.record("refused", str(error))
        if isinstance(error, HandoverError):
            raise
        raise GateError(f"model {name} version {candidate.version}: {error}") from None
    registry.tag_version(candidate, {"promotion": f"{PROMOTED}: {reason}"})
    return replace(decision, verdict=PROMOTED, reason=reason)


def print_comparison(rows: Sequence[Row]) -> None:
    """Prints them as a table."""
    print(table(rows), flush=True)


def describe(decision: Decision) -> str:
    """The line for people that says what `promote` decided and why."""
    which, alias = f"{decision.version.name} version {decision.version.version}", decision.alias
    if decision.verdict == UNCHANGED:
        return f"{which} is {alias} already"
    return f"{which} {f'would become {alias}' if decision.is_dry_run else f'is {alias} now'}: {decision.reason}"


def approve(name: str, version: int, code: str, *, to: str = PRODUCTION) -> str:
    """Approves the decision of which the waiting `promote` tells the code. Returns a line that says so.

    Raises TrackingError where there is no such version, GateError where no decision about it waits with this code.
    """
    from components.tracking import registry
    from components.tracking.lineage import who

    found, by = registry.require_version(name, version=version), who()
    waiting = asked(dict(found.tags), to)
    if code not in waiting:
        those = "; ".join(f"{one}, asked by {whom}" for one, whom in waiting.items())
        there = f"there wait {those}. Copy the code" if those else "none waits. Run promote --require-approval first"
        raise GateError(
            f"--approve: found {code}, expected the code of a decision that waits about {name} version {version} as "
            f"{to}; {there}."
        )
    registry.tag_version(found, {tag_of(GIVEN, to, code): by})
    return f"{name} version {version} as {to}: decision {code} is approved by {by}"


def rollback(name: str, *, to: str = PRODUCTION, dry_run: bool = False) -> str:
    """Moves the alias back to the version that it pointed to before. Returns a line that says so.

    Raises TrackingError where there is no such version, HandoverError where none is recorded or a promotion came
    between.
    """
    from components.tracking import registry

    current = registry.require_version(name, alias=to)
    target = registry.require_version(name, version=previous(name, to, current))
    if dry_run:
        return f"{name} version {target.version} would become {to} again, instead of version {current.version}"
    decision = Decision(current, to, current)
    reason = f"to version {target.version} of {name}"
    hand_over(name, to, current, target, lambda: decision.record("rolled back", reason), back=True)
    registry.tag_version(target, {"promotion": f"restored: by the rollback of version {current.version}"})
    return f"{name} version {target.version} is {to} again, instead of version {current.version}"


def _comparable(production: "ModelVersion", candidate: Scored, rescoring: Rescoring | None, dry_run: bool) -> Scored:
    """Production's scores, measured as the candidate's; raises GateError where that takes data that are not given.

    An earlier version's scores may lack rows of the candidate's: with data it is scored anew, without it those rows
    have nothing to compare with.
    """
    own = scored(production.version, production.tags)
    for known in (known_scores(production, candidate), own):
        if known is None or known.measure != candidate.measure:
            continue
        if rescoring is None or known.scores.keys() >= candidate.scores.keys():
            return known
    if rescoring is None:
        raise GateError(
            f"production's version {production.version} was scored on {_measure(own)}, this one on "
            f"{_measure(candidate)}, so that their scores do not compare. Give --data LOCATION, the prepared scenes of "
            "the latter, and production is scored on them."
        )
    found = rescore(production, candidate, rescoring)
    if not dry_run:
        keep_scores(production, found)
    return found


def _measure(of: Scored) -> str:
    data = f"prepared version {of.prepared_version}" if of.prepared_version else "unknown data"
    return data if of.settings is None else f"{data} with {of.settings}"


def _refuse(beside: str, why: str, options: Mapping[str, object]) -> None:
    for option, value in options.items():
        if value:
            raise GateError(f"{option}: is not used with {beside}, {why}. Leave it out.")


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the step."""
    parser = step_parser("promote", __doc__)
    parser.epilog = LOCATIONS
    parser.add_argument("--model", metavar="NAME", help="registered model (default: register.name)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--alias", help="promote the version of this alias (default: challenger)")
    which.add_argument("--version", type=int, metavar="N", help="promote this version")
    which.add_argument("--rollback", action="store_true", help="return to the version before, without the gate")
    parser.add_argument(
        "--to", metavar="ALIAS", help=f"the alias to move (default: {PRODUCTION}, or that of an event's model)"
    )
    parser.add_argument(
        "--data", nargs="+", metavar="LOCATION", help="prepared scenes, to score production on what the version was"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the comparison and change nothing")
    parser.add_argument(
        "--require-approval", action="store_true", help="wait until a person approves; the line that asks says how"
    )
    parser.add_argument("--approve", metavar="CODE", help="approve what another promote waits for; with --version")
    parser.add_argument("--approval-timeout", type=float, default=3600, metavar="SECONDS", help="default: %(default)s")
    parser.add_argument("--approval-interval", type=float, default=10, metavar="SECONDS", help="default: %(default)s")
    a = parser.parse_args(argv)
    with errors_in_one_line():
        for option, alias in (("--to", a.to), ("--alias", a.alias)):
            if alias is not None and not ALIAS.fullmatch(alias):
                raise GateError(
                    f"{option}: found {alias}, expected a name of letters, digits, - and _, neither latest nor one "
                    "such as v1. Correct it."
                )
        approval = Approval(a.approval_timeout, a.approval_interval)
        params = read_params(a)
        name = a.model or params.register_.name
        of_a_promotion = {"--require-approval": a.require_approval, "--data": a.data}
        if a.approve is not None:
            _refuse("--approve", "which only sets a tag", {**of_a_promotion, "--dry-run": a.dry_run})
            if a.version is None or not CODE.fullmatch(a.approve):
                raise GateError(
                    f"--approve: found {a.approve}, expected the code of 8 characters that the waiting promote names, "
                    "with --version. Copy its line."
                )
            print(approve(name, a.version, a.approve, to=a.to or PRODUCTION))
            return
        if a.rollback:
            _refuse("--rollback", "which goes back at once", of_a_promotion)
            print(rollback(name, to=a.to or PRODUCTION, dry_run=a.dry_run))
            return
        decision = promote(
            name,
            params.promote,
            alias=a.alias or (None if a.version is not None else CHALLENGER),
            version=a.version,
            to=a.to,
            rescoring=Rescoring(a.data, params, evaluate) if a.data else None,
            approval=approval if a.require_approval else None,
            dry_run=a.dry_run,
            on_comparison=print_comparison,
        )
        print(describe(decision))


if __name__ == "__main__":
    main()
