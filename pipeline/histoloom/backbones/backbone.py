"""What every denoising network is: one call, named taps, and what is done to it before it runs frozen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import torch
from torch import nn

from histoloom.backbones.int8 import set_int8
from histoloom.backbones.precision import autocast_type, native
from histoloom.conditions.batch import Conditions
from histoloom.config.denoiser_record import ConditionSpec, DenoiserRecord
from histoloom.errors import HistoloomError

if TYPE_CHECKING:
    from histoloom.config import TrainDenoiser

Specs = tuple[ConditionSpec, ...]
Forward = Callable[[torch.Tensor, torch.Tensor, Conditions], torch.Tensor]


class Backbone(nn.Module, ABC):
    """A network that predicts from noisy data under conditions: (b, c, ...), a time for each row (b,), and b rows of conditions, to
    a float32 tensor like the data.

    low_rank_layers : a pattern of the layers that low-rank updates stand beside, as peft takes it; empty of a network that
        takes none.
    memory_format : of the weights where it runs frozen; that of pictures unless stated.
    """

    low_rank_layers: ClassVar[str] = ""
    memory_format: ClassVar[torch.memory_format] = torch.channels_last

    def __init__(self) -> None:
        super().__init__()
        self._run: Forward | None = None

    @classmethod
    @abstractmethod
    def build(cls, config: TrainDenoiser, specs: Specs, shape: tuple[int, ...]) -> Self:
        """A new network for data of this shape (channels, ...) under these conditions."""

    @classmethod
    @abstractmethod
    def load(cls, source: str | Path, record: DenoiserRecord | None = None, revision: str | None = None) -> Self:
        """Load what `save` wrote, safetensors only.

        Parameters
        ----------
        source : a folder, or a hub's id.
        record : what lies beside the weights; None for a network from elsewhere.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the weights and what rebuilds the network. Weights may be channels-last, which safetensors takes only made contiguous."""

    @property
    @abstractmethod
    def channels(self) -> int:
        """Of the data."""

    @property
    def multiple(self) -> int:
        """What the sides of the data must be multiples of."""
        return 1

    @abstractmethod
    def predict(self, x: torch.Tensor, times: torch.Tensor, given: Conditions) -> torch.Tensor:
        """One forward of the network itself."""

    def forward(self, x: torch.Tensor, times: torch.Tensor, given: Conditions) -> torch.Tensor:
        return (self._run or self.predict)(x, times, given)

    @property
    def taps(self) -> tuple[str, ...]:
        """Modules whose features (b, c, h, w) tell what a picture shows, the coarsest first.

        Raises
        ------
        HistoloomError
            of a network that names none.
        """
        raise HistoloomError(f"A {type(self).__name__} names no features that tell what a picture shows.")

    def features(
        self, x: torch.Tensor, times: torch.Tensor, given: Conditions, taps: Collection[str]
    ) -> dict[str, torch.Tensor]:
        """What the modules named `taps` give in a forward, as torch names modules (`named_modules`).

        Raises
        ------
        HistoloomError
            for a name that no module has.
        """
        modules, found, hooks = dict(self.named_modules()), dict[str, torch.Tensor](), []
        if unknown := [name for name in taps if name not in modules]:
            raise HistoloomError(
                f"The network has no module '{unknown[0]}'. Some that it has: {', '.join([*modules][1:9])}."
            )
        for name in taps:
            hooks.append(modules[name].register_forward_hook(lambda _m, _i, out, name=name: found.update({name: out})))
        try:
            self.predict(x, times, given)
        finally:
            for hook in hooks:
                hook.remove()
        return found

    def refit(self, before: Specs, after: Specs) -> tuple[Self, tuple[str, ...]]:
        """A network with these weights whose inputs take the conditions `after` in place of `before`.

        New inputs start without effect, so that the network begins as it was.

        Returns
        -------
        The network, and the names of the parameters that are new in part or whole.
        """
        if before != after:
            raise HistoloomError(f"A {type(self).__name__} can't take other conditions than it was trained under.")
        return self, ()

    def add_low_rank(self, rank: int, whole: tuple[str, ...]) -> None:
        """Freeze all but the parameters named `whole`, and add low-rank updates beside `low_rank_layers` (Hu et al. 2021, LoRA)."""
        from peft import LoraConfig, inject_adapter_in_model

        if not self.low_rank_layers:
            raise HistoloomError(
                f"A {type(self).__name__} takes no low-rank updates: set train_denoiser.adapt to full."
            )
        self.requires_grad_(False)
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=self.low_rank_layers), self)
        for name, parameter in self.named_parameters():
            if name.replace(".base_layer", "") in whole:
                parameter.requires_grad_(True)

    def train_control(self, whole: tuple[str, ...]) -> None:
        """Freeze all but the ControlNet and the parameters named `whole`.

        Raises
        ------
        HistoloomError
            of a network that has no ControlNet.
        """
        raise HistoloomError(f"A {type(self).__name__} takes no ControlNet: set train_denoiser.adapt to full.")

    def merge_low_rank(self) -> None:
        """Add the low-rank updates to the weights that they stand beside, and take them out."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        for name, module in [*self.named_modules()]:
            if isinstance(module, BaseTunerLayer):
                module.merge()
                self.set_submodule(name, module.get_base_layer())

    def set_attention(self, kind: str) -> str:
        """Choose the attention kernels; returns the kind in use. A network without attention has nothing to choose."""
        return "sdpa"

    def freeze(self, device: str, *, attention: str = "auto", precision: str = "fp32") -> Self:
        """Make the network ready to run, and no more to be trained.

        Parameters
        ----------
        precision : fp32, bf16, fp16 or int8. What it gives stays float32.

        Raises
        ------
        HistoloomError
            where the device can't.
        """
        self.to(device).eval().requires_grad_(False)
        self.set_attention(attention)
        dtype, self._run = autocast_type(precision, device), self.predict
        self.to(memory_format=self.memory_format)
        set_int8(self, on=native(precision, device) == "int8")
        if dtype is not None:
            self._run = torch.autocast(device.split(":")[0], dtype)(self._run)
        if device.startswith("cuda"):
            from histoloom.backbones.graphs import Graphed

            self._run = Graphed(self._run)
        return self
