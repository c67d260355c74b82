"""Which recipes a training follows: a tag of its run."""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Any

from components.params import Params, ParamsError, known_recipes, lay_over, read_recipe, validate


def recipe_of(params: Params) -> str:
    """Names of the recipes that training follows, as "paper+mine"; "none" where there is none.

    Followed are those whose sections `train`, laid over the parameters one after the other, change nothing any more,
    and of which each says something that the later ones do not. One that cannot be read is none of them, and is told.
    """
    given = params.model_dump(mode="json", by_alias=True)
    recipes = {}
    for name, path in known_recipes().items():
        try:
            train = read_recipe(path).get("train")
        except ParamsError as error:
            print(f"recipe {name} is left out: {error}")
            continue
        if train:  # None where the recipe is of a cluster only
            recipes[name] = {"train": train}
    return "+".join(_followed(recipes, given)) or "none"


def _followed(recipes: Mapping[str, Any], given: Mapping[str, Any]) -> Sequence[str]:
    """Those of the recipes that are followed, in an order in which they may have been given. What lies over another is
    found first, and of two the longer one, which may say all that the shorter one says.
    """
    longest_first = sorted(recipes, key=lambda name: -len(json.dumps(recipes[name])))
    names: list[str] = []
    while more := next(
        (
            name
            for name in longest_first
            if name not in names and _are_followed([recipes[each] for each in (name, *names)], given)
        ),
        None,
    ):
        names.insert(0, more)
    return names


def _are_followed(recipes: Sequence[Mapping[str, Any]], given: Mapping[str, Any]) -> bool:
    try:
        if validate(_laid_over(given, recipes), "").train != validate(given, "").train:
            return False
    except ParamsError:  # a recipe for another network
        return False
    said = _laid_over({}, recipes)
    return all(_laid_over({}, [each for each in recipes if each is not one]) != said for one in recipes)


def _laid_over(base: Mapping[str, Any], changes: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    return reduce(lay_over, changes, base)
