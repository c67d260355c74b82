"""The measurements of a GPU, with a small network on the CPU: they run, and need few packages."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu.__main__ import main
from tests.commands import environment, exit_line
from tests.paths import ROOT

# What a bare machine with a GPU does not have; torch may ask for some of it, our code may not.
WITHOUT = """
import runpy, sys
class Without:
    def find_spec(self, name, path=None, target=None):
        frame = sys._getframe(1)
        while "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        file = frame.f_code.co_filename
        ours = file.startswith({root!r}) and "site-packages" not in file
        have = {{"torch", "numpy", "cv2", "pydantic", "annotated_types", "safetensors", "tqdm"}}
        own = {{"base", "benchmarks", "model", "xbd"}}
        if ours and name.partition(".")[0] not in have | own | sys.stdlib_module_names:
            raise ModuleNotFoundError(f"{{file}} imports {{name}}")
sys.meta_path.insert(0, Without())
sys.argv = ["gpu", "--tiny", "--out", {out!r}]
runpy.run_module("benchmarks.gpu", run_name="__main__")
"""


@pytest.mark.endurance
def test_it_runs_on_a_cpu_with_torch_and_little_else(tmp_path: Path) -> None:
    out = tmp_path / "new" / "gpu.json"
    code = WITHOUT.format(root=f"{ROOT}/", out=str(out))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text(encoding="utf-8"))
    assert {check["name"]: check["difference"] for check in found["checks"]}["float32 logits, against the CPU"] == 0
    assert [row["note"] for row in found["speed"] if row["note"]] == []
    assert all(row["rate"] > 0 for row in found["speed"])
    assert all(f"| {row['name']} |" in done.stdout for row in found["speed"])


def test_a_place_where_nothing_can_be_written_ends_it_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert exit_line(main, "--tiny", "--out", tmp_path / "file" / "gpu.json").startswith(
        f"InputError: {tmp_path / 'file'}: is a file, expected a folder"
    )
