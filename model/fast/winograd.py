"""Convolutions of 3 x 3 with 2.25 multiplications a pixel instead of 9, for layers of many channels on a CPU.

Winograd's F(4 x 4, 3 x 3): tiles of 6 x 6 pixels, kernels and results go through small fixed matrices, between which
each tile is 36 products. Method and matrices: A. Lavin and S. Gray, Fast Algorithms for Convolutional Neural Networks,
https://arxiv.org/abs/1509.09308, section 4.3.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_TILES = 4  # rows of tiles at once: what one step writes is still in the cache when the next one reads it
_PIXELS: list[list[float]] = [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
]
_KERNEL: list[list[float]] = [
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
]
_RESULT: list[list[float]] = [
    [1, 1, 1, 1, 1, 0],
    [0, 1, -1, 2, -2, 0],
    [0, 1, 1, 4, 4, 0],
    [0, 1, -1, 8, -8, 1],
]


def _both_ways(rows: list[list[float]]) -> Tensor:
    """The matrix that does to flattened squares what this one does to their columns and to their rows."""
    matrix = torch.tensor(rows, dtype=torch.float64)
    return torch.kron(matrix, matrix).float()


class WinogradConv(nn.Module):
    """A convolution of stride 1 that keeps the size, and the ReLU that follows it; float32, on a CPU.

    weight: [K, C, 3, 3], bias: [K]. Its error is about eight times that of a plain convolution. The kernels are
    transformed anew for each image: kept, they would take four times the memory of the weights.
    """

    def __init__(self, weight: Tensor, bias: Tensor, *, relu: bool = False) -> None:
        super().__init__()
        self.relu, self.size = relu, weight.shape[:2]
        self.weight, self.bias = weight.permute(2, 3, 1, 0).reshape(9, -1).contiguous(), bias
        self.pixels, self.kernel, self.result = (_both_ways(rows) for rows in (_PIXELS, _KERNEL, _RESULT))

    def forward(self, x: Tensor) -> Tensor:
        """The convolution of x [B, C, H, W], then ReLU where it has one."""
        y = self._convolve(x)
        return y.relu_() if self.relu else y

    def add_to(self, total: Tensor, x: Tensor) -> Tensor:
        """ReLU of total + the convolution of x; overwrites and returns total."""
        total += self._convolve(x)
        return total.relu_()

    def _convolve(self, x: Tensor) -> Tensor:
        # Image by image, so that products have one shape, and give the same numbers, whatever the batch.
        kernels = (self.kernel @ self.weight).view(36, self.size[1], self.size[0])
        batch, _, height, width = x.shape
        y = x.new_empty(batch, -(-height // 4) * 4, -(-width // 4) * 4, self.size[0])
        for image, into in zip(x.permute(0, 2, 3, 1), y, strict=True):
            self._image(image, kernels, into)
        return y[:, :height, :width].contiguous().permute(0, 3, 1, 2)

    def _image(self, x: Tensor, kernels: Tensor, y: Tensor) -> None:
        """x: [H, W, C]; y: [H, W, K], what is written, its sides rounded up to fours."""
        height, width, channels = x.shape
        down, across = y.shape[0] // 4, y.shape[1] // 4
        padded = F.pad(x, (0, 0, 1, 4 * across - width + 1, 1, 4 * down - height + 1))
        row, column, channel = padded.stride()
        for top in range(0, down, _TILES):
            rows = min(_TILES, down - top)
            part = padded[4 * top :]
            tiles = part.as_strided(
                (6, 6, rows, across, channels), (row, column, 4 * row, 4 * column, channel), part.storage_offset()
            )
            seen = (self.pixels @ tiles.reshape(36, -1)).view(36, rows * across, channels)
            found = (self.result @ torch.bmm(seen, kernels).view(36, -1)).view(4, 4, rows, across, self.size[0])
            into = y[4 * top : 4 * (top + rows)].view(rows, 4, across, 4, self.size[0])
            torch.add(found.permute(2, 0, 3, 1, 4), self.bias, out=into)
