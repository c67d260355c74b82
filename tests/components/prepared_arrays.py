"""The files of prepared arrays, and which of them a run of prepare wrote anew."""

from pathlib import Path


def array(root: Path, scene: str) -> Path:
    return root / "scenes" / f"{scene}.npy"


def files(root: Path) -> dict[str, tuple[int, int]]:
    """Each array's file by its scene: inode, and when it was last written, since inodes are used again."""
    states = {path.stem: path.stat() for path in (root / "scenes").glob("*.npy")}
    return {scene: (state.st_ino, state.st_mtime_ns) for scene, state in states.items()}


def changed(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> set[str]:
    """Scenes whose file is not the one it was."""
    return {scene for scene in before.keys() | after.keys() if before.get(scene) != after.get(scene)}
