"""Published weights through the command line: the model directory gives the published logits, or one line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from components.import_weights import main
from model.inference import load_model
from tests.commands import assert_one_line, exit_line, run_step, succeed
from tests.comparing import LOGITS, assert_close, tree
from tests.paths import GOLDEN

PUBLISHED = GOLDEN / "model" / "published_format_tiny.pth"


def assert_published_logits(directory: Path) -> None:
    golden = np.load(GOLDEN / "model" / "published_format_tiny_io.npz")
    pre, post, localization, damage = (torch.tensor(golden[key]) for key in ("pre", "post", "loc_logits", "cls_logits"))
    with torch.inference_mode():
        logits = load_model(directory)(pre, post)
    assert_close(logits.localization, localization, LOGITS)
    assert_close(logits.damage, damage, LOGITS)


def test_imported_weights_give_the_published_logits(tmp_path: Path) -> None:
    out = succeed("import_weights", "--checkpoint", PUBLISHED, "--out", tmp_path / "new" / "model", cwd=tmp_path)
    state = torch.load(PUBLISHED, weights_only=True)["state_dict"]
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    parameters = sum(tensor.numel() for name, tensor in state.items() if not name.endswith(buffers))
    assert out.splitlines() == [
        f"{PUBLISHED}: Dual-HRNet of width 8, modules [1, 2, 1], {parameters:,} parameters",
        f"model: {tmp_path / 'new' / 'model'}",
    ]
    assert set(tree(tmp_path)) == {"new/model/config.json", "new/model/model.safetensors"}
    assert_published_logits(tmp_path / "new" / "model")


@pytest.mark.parametrize("prefix", ["module.", "model.", "module.model."])
def test_prefixes_and_a_bare_state_dict_change_nothing(prefix: str, tmp_path: Path) -> None:
    state = torch.load(PUBLISHED, weights_only=True)["state_dict"]
    torch.save({f"{prefix}{name}": tensor for name, tensor in state.items()}, tmp_path / "weight.pth")
    main(["--checkpoint", str(tmp_path / "weight.pth"), "--out", str(tmp_path / "model")])
    assert_published_logits(tmp_path / "model")


def test_the_directory_says_that_the_stem_is_the_published_one(tmp_path: Path) -> None:
    main(["--checkpoint", str(PUBLISHED), "--out", str(tmp_path / "model")])
    config = json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))
    assert config["architecture"]["stem_order"] == "published"


def test_an_earlier_import_is_replaced_and_the_result_is_the_same(tmp_path: Path) -> None:
    arguments = ["--checkpoint", str(PUBLISHED), "--out", str(tmp_path / "model")]
    main(arguments)
    first = tree(tmp_path)
    main(arguments)
    assert tree(tmp_path) == first


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "notes.txt").write_text("mine")
    before = tree(tmp_path)
    line = exit_line(main, "--checkpoint", PUBLISHED, "--out", tmp_path / "model")
    assert "notes.txt: would be deleted" in line
    assert tree(tmp_path) == before


@pytest.mark.parametrize("kind", ["missing", "truncated", "foreign"])
def test_what_cannot_be_imported_is_one_line_and_nothing_is_written(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "weight.pth"
    if kind == "truncated":
        path.write_bytes(PUBLISHED.read_bytes()[:100_000])
    elif kind == "foreign":
        torch.save({"fc.weight": torch.ones(2, 3)}, path)
    line = exit_line(main, "--checkpoint", path, "--out", tmp_path / "model")
    assert line.startswith(f"WeightsError: {path}: ")
    assert not (tmp_path / "model").exists()


def test_a_program_in_place_of_weights_is_one_line_without_warnings_around_it(tmp_path: Path) -> None:
    path = tmp_path / "weight.pth"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 3)), str(path))
    result = run_step("import_weights", "--checkpoint", path, "--out", tmp_path / "model", cwd=tmp_path)
    assert_one_line(result, f"WeightsError: {path}: ", "TorchScript")
    assert result.stdout == ""
    assert not (tmp_path / "model").exists()
