"""A grid in shards: each block in one, as many as asked for, with about as much to do in each."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagery.shards.division import divide, weigh
from imagery.shards.plan import PlanError


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_shards_cover_each_block_once_and_are_as_many_as_asked_for(
    rows: int, columns: int, count: int, seed: int
) -> None:
    size = columns * 1024 - 100, rows * 1024 - 900
    weights = np.random.default_rng(seed).integers(0, 2, (rows, columns))
    if count > weights.size:
        with pytest.raises(PlanError, match=rf"--shards: found {count}, expected at most {weights.size}:"):
            divide(*size, weights, count)
        return
    shards = divide(*size, weights, count)
    assert len(shards) == count
    seen = np.zeros((rows, columns), np.int64)
    for shard in shards:
        assert shard.column % 1024 == shard.row % 1024 == 0
        inside = (part.start // 1024 for part in shard.window.toslices())
        behind = (-(-part.stop // 1024) for part in shard.window.toslices())
        seen[tuple(map(slice, inside, behind))] += 1
    assert (seen == 1).all()
    assert sum(shard.width * shard.height for shard in shards) == size[0] * size[1]
    assert list(shards) == sorted(shards, key=lambda shard: (shard.row, shard.column))


def test_shards_have_the_same_work_where_files_lie_in_a_corner_only() -> None:
    """Pre everywhere, post in 8 x 8 of 16 x 16 blocks: each of 4 shards has 16 of these."""
    size = 16 * 1024, 16 * 1024
    weights = weigh(*size, [(-1024, -1024, 20_000, 20_000)], [(8 * 1024, 0, 16 * 1024, 8 * 1024)])
    assert weights.sum() == 64 and weights[:8, 8:].all()
    work = [weights[shard.row // 1024 :, shard.column // 1024 :] for shard in divide(*size, weights, 4)]
    sizes = [(shard.height // 1024, shard.width // 1024) for shard in divide(*size, weights, 4)]
    assert [int(own[:height, :width].sum()) for own, (height, width) in zip(work, sizes, strict=True)] == [16] * 4


def test_a_file_beside_the_grid_gives_nothing_to_do() -> None:
    everywhere = [(0, 0, 2048, 2048)]
    assert weigh(2048, 2048, everywhere, [(-900, 0, 0, 2048), (2048, 0, 3000, 2048)]).sum() == 0
    assert weigh(2048, 2048, everywhere, [(1000, 1100, 1030, 1200)]).tolist() == [[0, 0], [1, 1]]
