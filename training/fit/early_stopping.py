"""Early stopping by the likelihood of validation images."""

from typing import Any

from torch import nn

from training.config.run_config import StoppingConfig


class EarlyStopping:
    """Watches the validation loss and keeps the weights of the best epoch.

    Attributes:
        best: epoch, loss and weights as a checkpoint holds them; empty before the first epoch.
    """

    def __init__(self, settings: StoppingConfig | None) -> None:
        self._settings = settings
        self.best: dict[str, Any] = {}

    def is_due(self, epochs: int) -> bool:
        """Tell if the best epoch lies `patience` epochs back."""
        if self._settings is None or not self.best:
            return False
        return epochs - int(self.best["epoch"]) >= self._settings.patience

    def observe(self, epoch: int, nll: float, flow: nn.Module) -> None:
        """Keep the flow's weights if the epoch is the best so far."""
        if not self.best or nll < self.best["nll"]:
            weights = {name: value.detach().clone() for name, value in flow.state_dict().items()}
            self.best = {"epoch": epoch, "nll": nll, "weights": weights}

    def restore(self, flow: nn.Module) -> None:
        """Give the flow the weights of the best epoch, if epochs were observed."""
        if self.best:
            flow.load_state_dict(self.best["weights"])
