"""Step promote: moves the alias "production" to a registered version, if it passes the gate of params.yaml."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from components.cli import errors_in_one_line, read_params, step_parser
from components.params import PromoteParams
from xbd.errors import InputError

if TYPE_CHECKING:
    from components.registry import ModelVersion


class GateError(InputError):
    """The version may not become production."""


def promote(name: str, params: PromoteParams, *, alias: str | None = None, version: int | None = None) -> str:
    """Makes the version of that alias or number production. Nothing moves where the gate stays shut.

    Returns a line that says what was decided and why; the version carries it as the tag promotion.
    Raises TrackingError where there is no such version, GateError where the gate refuses.
    """
    from components import registry
    from components.connection import TrackingError

    candidate = registry.find_version(name, alias=alias, version=version)
    if candidate is None:
        wanted = f"alias {alias}" if alias is not None else f"version {version}"
        raise TrackingError(f"model {name}: has no {wanted}. Register a model first.")
    production = registry.find_version(name, alias=registry.PRODUCTION)
    if production is not None and production.version == candidate.version:
        return f"{name} version {candidate.version} is production already"
    try:
        reason = check_gate(_score(candidate), None if production is None else _score(production), params)
    except GateError as error:
        message = f"model {name} version {candidate.version}: {error}"
        registry.tag_version(candidate, {"promotion": f"refused: {error}"})
        raise GateError(message) from None
    if production is not None and _data(production) != _data(candidate):
        reason += "; warning: production was scored on another data version, so the two scores may not compare"
    registry.tag_version(candidate, {"promotion": f"promoted: {reason}"})
    registry.set_alias(candidate, registry.PRODUCTION)
    return f"{name} version {candidate.version} is production now: {reason}"


def check_gate(score: float, production: float | None, params: PromoteParams) -> str:
    """The gate itself: returns the reason to promote, raises GateError with the reason not to.

    score: of the candidate; production: of the current production version, or None.
    """
    if not score >= params.minimum_score:  # a score that is NaN is refused, too
        raise GateError(f"score {score:.4f} is below promote.minimum_score {params.minimum_score}. Train a better one.")
    if production is None:
        return f"score {score:.4f} reaches {params.minimum_score} and there was no production version"
    if score < production - params.tolerance:
        raise GateError(
            f"score {score:.4f} is worse than production's {production:.4f} by more than promote.tolerance "
            f"{params.tolerance}. Train a better one, or raise the tolerance."
        )
    return f"score {score:.4f} reaches {params.minimum_score} and is not worse than production's {production:.4f}"


def _score(version: "ModelVersion") -> float:
    tags: Mapping[str, str] = version.tags
    try:
        return float(tags["score"])
    except (KeyError, ValueError):
        raise GateError(f"version {version.version} has no tag score. Register it with its metrics.") from None


def _data(version: "ModelVersion") -> str | None:
    return dict(version.tags).get("data_version")


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the step."""
    parser = step_parser("promote", __doc__)
    parser.add_argument("--model", metavar="NAME", help="registered model (default: register.name)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--alias", help="promote the version of this alias (default: challenger)")
    which.add_argument("--version", type=int, metavar="N", help="promote this version")
    arguments = parser.parse_args(argv)
    alias = arguments.alias or (None if arguments.version is not None else "challenger")
    with errors_in_one_line():
        params = read_params(arguments)
        name = arguments.model or params.register_.name
        print(promote(name, params.promote, alias=alias, version=arguments.version))


if __name__ == "__main__":
    main()
