"""Networks that compute a coupling's parameters from the part that passes unchanged."""

from torch import Tensor, nn


class ConvNet(nn.Module):
    """conv k x k -> ReLU -> conv k x k, same height and width.

    The last layer starts at zero, so that a coupling starts as the identity.

    Args:
        channels: (in, hidden, out).
        kernel_size: k, odd.
    """

    def __init__(self, channels: tuple[int, int, int], kernel_size: int) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"ConvNet expected an odd kernel size; got {kernel_size}")
        in_, hidden, out = channels
        self.first = nn.Conv2d(in_, hidden, kernel_size, padding=kernel_size // 2)
        self.last = nn.Conv2d(hidden, out, kernel_size, padding=kernel_size // 2)
        nn.init.zeros_(self.last.weight)
        if self.last.bias is not None:
            nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H, W)."""
        hidden = nn.functional.relu(self.first(x), inplace=True)
        out: Tensor = self.last(hidden)
        return out
