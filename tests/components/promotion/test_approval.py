"""Approval of a promotion: how it is asked for, both ways to give it, and what it is good for."""

import getpass
import re
import shlex
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from components.params import PromoteParams
from components.promote import main, promote, rollback
from components.promotion import approval as approvals
from components.promotion.approval import Approval, Request, wait_for_approval
from components.promotion.gate import GateError
from tests.components.tracking.model_registry import Registry
from tests.conftest import exit_line, write_params

GATE = PromoteParams(minimum_score=0.3, tolerance=0.0)


@pytest.fixture(autouse=True)
def moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store on this machine answers soon."""
    monkeypatch.setattr(approvals, "MOMENT", 0.2)


def test_an_approval_that_nobody_gives_is_one_line_that_says_how(registry: Registry, params_file: Path) -> None:
    version = registry.add(0.5)
    approval = ["--require-approval", "--approval-timeout", "0.2", "--approval-interval", "0.05"]
    line = exit_line(main, "--params", params_file, "--model", registry.name, *approval)
    assert (
        "nobody approved it within 0.2 s: to approve version 1 as production, run python -m components.promote" in line
    )
    assert re.search(r"set the tag approved_by\.production\.[0-9a-f]{8} to your name on version 1 of model", line)
    assert registry.production() is None
    assert "nobody approved it" in str(registry.promotion(version))


def asked(registry: Registry, params_file: Path, *more: str) -> str:
    """What a promotion says that nobody approves."""
    approval = ["--require-approval", "--approval-timeout", "0"]
    line = exit_line(main, "--params", params_file, "--model", registry.name, *approval, *more)
    assert "nobody approved it" in line
    return line


def asked_for(registry: Registry) -> str:
    """The same of a promotion within Python."""
    with pytest.raises(GateError, match="nobody approved it") as caught:
        promote(registry.name, GATE, alias="challenger", approval=Approval(0, 1))
    return str(caught.value)


def tag_in(line: str) -> str:
    found = re.search(r"approved_by\.\S+", line)
    assert found
    return found[0]


def test_an_approved_version_becomes_production_and_says_who_approved_it(
    registry: Registry, params_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    version = registry.add(0.5)
    registry.client.set_model_version_tag(registry.name, str(version), tag_in(asked(registry, params_file)), "Ada")
    main(["--params", str(params_file), "--model", registry.name, "--require-approval"])
    assert "approved by Ada" in capsys.readouterr().out
    assert registry.production() == version
    assert registry.decisions(version)[-1]["approved_by"] == "Ada"


def test_the_command_that_asks_for_approval_names_the_one_that_gives_it(registry: Registry, params_file: Path) -> None:
    version = registry.add(0.5)
    line = asked(registry, params_file, "--to", "staging")
    found = re.search(r"python -m components\.promote (.*?);", line)
    assert found
    main(["--params", str(params_file), *shlex.split(found[1])])
    assert registry.production() is None  # an approval moves nothing
    main(["--params", str(params_file), "--model", registry.name, "--to", "staging", "--require-approval"])
    assert int(registry.client.get_model_version_by_alias(registry.name, "staging").version) == version
    assert registry.decisions(version)[-1]["approved_by"].startswith(f"{getpass.getuser()}@")


def test_an_approval_is_used_once(registry: Registry, params_file: Path) -> None:
    """After a rollback the very same decision comes up again."""
    registry.add(0.5)
    promote(registry.name, GATE, version=1)
    version = registry.add(0.6)
    line = asked(registry, params_file)
    registry.client.set_model_version_tag(registry.name, str(version), tag_in(line), "Ada")
    promote_now = ["--params", str(params_file), "--model", registry.name, "--require-approval"]
    main(promote_now)
    assert registry.production() == version
    rollback(registry.name)
    assert tag_in(asked(registry, params_file)) == tag_in(line)
    assert registry.production() == 1


def test_an_approval_that_another_promotion_uses_meanwhile_is_none(registry: Registry) -> None:
    """To score production anew may take an hour, in which the same decision is made, and taken back."""
    version = str(registry.add(0.5))
    tag = tag_in(asked_for(registry))
    registry.client.set_model_version_tag(registry.name, version, tag, "Ada")

    def use(rows: object) -> None:
        registry.client.delete_model_version_tag(registry.name, version, tag)

    with pytest.raises(GateError, match="nobody approved it"):
        promote(registry.name, GATE, alias="challenger", approval=Approval(0, 1), on_comparison=use)
    assert registry.production() is None


def test_an_approval_is_for_one_version_alias_predecessor_and_table(
    registry: Registry, params_file: Path, tmp_path: Path
) -> None:
    version = registry.add(0.5)
    tags = [tag_in(asked(registry, params_file)), tag_in(asked(registry, params_file, "--to", "staging"))]
    registry.add(0.5)
    tags.append(tag_in(asked(registry, params_file)))
    promote(registry.name, GATE, version=version)
    tags.append(tag_in(asked(registry, params_file)))  # now it replaces a version
    loose = write_params(tmp_path / "loose.yaml", {"promote": {"tolerance": 0.2}})
    tags.append(tag_in(asked(registry, loose)))
    assert len(set(tags)) == len(tags)
    for tag in ("approved_by", *tags[:-2]):
        registry.client.set_model_version_tag(registry.name, "2", tag, "Ada")
    assert tag_in(asked(registry, params_file)) == tags[3]
    assert registry.production() == version


def test_of_two_promotions_that_find_one_approval_one_uses_it(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = str(registry.add(0.5))
    request = Request(registry.client.get_model_version(registry.name, version), "production", None, ())
    tag = approvals.tag_of(approvals.GIVEN, "production", request.code)
    registry.client.set_model_version_tag(registry.name, version, tag, "Ada")
    both, use = Barrier(2), approvals._use

    def use_together(asked: Request) -> None:
        both.wait(30)
        use(asked)

    def outcome(_: int) -> str:
        try:
            return wait_for_approval(request, Approval(0, 1))
        except GateError as error:
            return str(error)

    monkeypatch.setattr(approvals, "_use", use_together)
    with ThreadPoolExecutor(2) as pool:
        by, refused = sorted(pool.map(outcome, range(2)), key=len)
    assert by == "Ada"
    assert refused.startswith(f"another promotion used the approval of decision {request.code} at the same time")
    assert not [key for key in registry.tags(int(version)) if key.startswith("approv")]


def test_an_approval_that_is_gone_when_it_is_read_back_is_not_used(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slower promotion writes its word after a faster one has read its own back."""
    version = str(registry.add(0.5))
    tag = tag_in(asked_for(registry))
    registry.client.set_model_version_tag(registry.name, version, tag, "Ada")

    def be_slow(_: float) -> None:
        registry.client.delete_model_version_tag(registry.name, version, tag)

    monkeypatch.setattr("components.promotion.approval.time.sleep", be_slow)
    with pytest.raises(GateError, match="another promotion used the approval"):
        promote(registry.name, GATE, alias="challenger", approval=Approval(0, 1))
    assert registry.production() is None


def test_a_code_that_no_decision_waits_for_is_refused_with_those_that_do(registry: Registry, params_file: Path) -> None:
    version = registry.add(0.5)
    approve = ["--params", str(params_file), "--model", registry.name, "--version", str(version), "--approve"]
    assert "none waits. Run promote --require-approval first." in exit_line(main, *approve, "3f2a9c1b")
    code = tag_in(asked(registry, params_file)).rpartition(".")[2]
    line = exit_line(main, *approve, "3f2a9c1b")
    assert f"as production; there wait {code}, asked by {getpass.getuser()}@" in line
    assert line.endswith(". Copy the code.")
    assert "none waits" in exit_line(main, *approve, code, "--to", "staging")
    assert not [key for key in registry.tags(version) if key.startswith("approved_by")]
    main([*approve, code])
    assert f"approved_by.production.{code}" in registry.tags(version)
