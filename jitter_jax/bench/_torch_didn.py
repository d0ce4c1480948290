"""DIDN in PyTorch, as `jitter_jax.networks.DIDN` has it."""

import torch  # type: ignore[import-not-found,unused-ignore]
from torch import nn  # type: ignore[import-not-found,unused-ignore]


def _convolution(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2)


class DownUp(nn.Module):
    """A block: down to a quarter of the resolution and up again, with skip connections.

    Args:
        width: channels.
    """

    def __init__(self, width: int):
        super().__init__()
        w = width
        self.convolutions = nn.ModuleList(
            [
                *[_convolution(w, w) for _ in range(2)],
                _convolution(w, 2 * w, stride=2),
                _convolution(2 * w, 2 * w),
                _convolution(2 * w, 4 * w, stride=2),
                _convolution(4 * w, 4 * w),
                _convolution(4 * w, 8 * w, 1),
                _convolution(4 * w, 2 * w, 1),
                _convolution(2 * w, 2 * w),
                _convolution(2 * w, 4 * w, 1),
                _convolution(2 * w, w, 1),
                *[_convolution(w, w) for _ in range(3)],
            ]
        )
        self.activations = nn.ModuleList([nn.PReLU() for _ in range(9)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Keep the shape `(batch, channels, height, width)`."""
        convolutions, activations = iter(self.convolutions), iter(self.activations)
        activated = lambda x: next(activations)(next(convolutions)(x))

        def up(x: torch.Tensor, beside: torch.Tensor) -> torch.Tensor:
            x = nn.functional.pixel_shuffle(next(convolutions)(x), 2)
            return next(convolutions)(torch.cat([x, beside], dim=1))

        full = x + activated(activated(x))
        half = activated(full)
        half = half + activated(half)
        quarter = activated(half)
        quarter = quarter + activated(quarter)
        y = up(quarter, half)
        y = y + activated(y)
        y = up(y, full)
        y = y + activated(activated(y))
        return x + next(convolutions)(y)


class DIDN(nn.Module):
    """Blocks in a chain at half the resolution, without the input that the unroll adds.

    Args:
        width: channels at half the resolution.
        num_blocks: number of blocks.
        channels: of the input.
    """

    def __init__(self, width: int, num_blocks: int, channels: int = 2):
        super().__init__()
        self.convolutions = nn.ModuleList(
            [
                _convolution(channels, width),
                _convolution(width, width, stride=2),
                _convolution(num_blocks * width, width, 1),
                _convolution(width, width),
                _convolution(width // 4, channels),
            ]
        )
        self.activations = nn.ModuleList([nn.PReLU() for _ in range(4)])
        self.blocks = nn.ModuleList([DownUp(width) for _ in range(num_blocks)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Keep the shape `(batch, channels, height, width)`."""
        first, down, join, last, out = self.convolutions
        activations = self.activations
        height, width = x.shape[-2:]
        missing_rows, missing_columns = -height % 8, -width % 8
        above, left = missing_rows // 2, missing_columns // 2
        x = nn.functional.pad(x, (left, missing_columns - left, above, missing_rows - above))
        x = activations[1](down(activations[0](first(x))))
        results = []
        for block in self.blocks:
            x = block(x)
            results.append(x)
        x = activations[2](join(torch.cat(results, dim=1)))
        x = x + activations[3](last(x))
        x = out(nn.functional.pixel_shuffle(x, 2))
        return x[..., above : above + height, left : left + width]
