"""The forward process and its algebra, for arrays and tensors of any rank.

Data x0 with noise n is, at a time t,

    x_t = alpha_t x0 + sigma_t n,    alpha_t^2 + sigma_t^2 = 1        (Ho et al. 2020, eq. 4)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Literal, NamedTuple, TypeVar

import numpy as np
import torch

from histoloom.config.denoiser_record import DenoiserTraining, Prediction, Schedule
from histoloom.process import schedules

if TYPE_CHECKING:
    from histoloom.config import TrainDenoiser

N = TypeVar("N", float, torch.Tensor)
LossWeight = Literal["none", "min_snr", "p2"]


class Scales(NamedTuple, Generic[N]):
    """What data and noise are multiplied by at a time: numbers, or tensors that broadcast over a batch."""

    alpha: N
    sigma: N


@dataclass(frozen=True)
class Process:
    """A forward process of `train_timesteps` discrete times, and what a network predicts of it.

    prediction : epsilon, the noise n; sample, the data x0; or v_prediction, alpha n - sigma x0 (Salimans & Ho 2022, appendix D).
    ends : the first and the last variance; None where they are the schedule's own.
    """

    prediction: Prediction
    schedule: Schedule
    train_timesteps: int
    ends: tuple[float, float] | None = None

    @classmethod
    def of(cls, stated: TrainDenoiser | DenoiserTraining) -> Process:
        """The process of a denoiser, by params or by its record."""
        return cls(stated.prediction, stated.schedule, stated.train_timesteps, stated.betas)

    def save(self, folder: Path, bound: float | None = None) -> None:
        """Write the process as diffusers states it, `scheduler_config.json`, so that any of its schedulers opens the folder.

        bound : to which predictions of the data are clipped; None where they aren't.
        """
        from diffusers.schedulers import DDIMScheduler

        DDIMScheduler(
            num_train_timesteps=self.train_timesteps,
            trained_betas=self.betas.tolist(),
            prediction_type=self.prediction,
            clip_sample=bound is not None,
            clip_sample_range=1.0 if bound is None else bound,
            set_alpha_to_one=False,
            timestep_spacing="trailing",
        ).save_config(folder)  # type: ignore[attr-defined]  # a mixin of the scheduler

    @property
    def betas(self) -> np.ndarray:
        """Variance that each time adds, (train_timesteps,) float64."""
        return schedules.betas(self.schedule, self.train_timesteps, self.ends)

    @cached_property
    def alpha_bar(self) -> np.ndarray:
        """alpha squared at each time, (train_timesteps,) float64."""
        return np.cumprod(1 - self.betas)

    @property
    def snr(self) -> np.ndarray:
        """Signal-to-noise ratio at each time, (train_timesteps,): alpha squared over sigma squared."""
        return self.alpha_bar / (1 - self.alpha_bar)

    def level(self, time: float) -> float:
        """How far a time lies on the way from data, 0, to noise, 1."""
        return time / self.train_timesteps

    def scales(self, time: int) -> Scales[float]:
        """Of one time for all rows."""
        bar = self.alpha_bar[time]
        return Scales(float(bar**0.5), float((1 - bar) ** 0.5))

    def scales_of(self, times: torch.Tensor, rank: int) -> Scales[torch.Tensor]:
        """Of a time for each row: (b,) times to two float32 tensors of this rank, (b, 1, ...)."""
        rows = _scales_table(self, times.device)[:, times].view(2, -1, *(1,) * (rank - 1))
        return Scales(rows[0], rows[1])

    def noised(self, x0, noise, scales: Scales):
        """x_t of data with this noise."""
        return scales.alpha * x0 + scales.sigma * noise

    def target(self, x0, noise, scales: Scales):
        """What the network is to predict of data with this noise."""
        if self.prediction == "sample":
            return x0
        return noise if self.prediction == "epsilon" else scales.alpha * noise - scales.sigma * x0

    def x0(self, noisy, predicted, scales: Scales):
        """The data that a prediction of x_t implies."""
        if self.prediction == "sample":
            return predicted
        if self.prediction == "epsilon":
            return (noisy - scales.sigma * predicted) / scales.alpha
        return scales.alpha * noisy - scales.sigma * predicted

    def predicted(self, noisy, x0, scales: Scales):
        """The prediction of x_t that implies this data: `x0` the other way round."""
        return self.target(x0, (noisy - scales.alpha * x0) / scales.sigma, scales)

    def loss_weights(self, kind: LossWeight, gamma: float, k: float = 1.0) -> np.ndarray:
        """Weight of the squared error of the network's prediction at each time, (train_timesteps,) float64.

        none : 1
        min_snr : min(SNR, gamma) on the error of x0 (Hang et al. 2023, eq. 8)
        p2 : 1 / (k + SNR)^gamma on the error of epsilon (Choi et al. 2022, eq. 8)
        """
        return loss_weights(self.snr, self.prediction, kind, gamma, k)


def loss_weights(snr: np.ndarray, prediction: Prediction, kind: LossWeight, gamma: float, k: float = 1.0) -> np.ndarray:
    """`Process.loss_weights` at these signal-to-noise ratios.

    Errors of the three predictions are one error in different units. That of epsilon is SNR times that of x0. That of v is
    SNR + 1 times that of x0.
    """
    snr = np.asarray(snr, np.float64)
    if kind == "none":
        return np.ones_like(snr)
    of_x0 = np.minimum(snr, gamma) if kind == "min_snr" else snr / (k + snr) ** gamma
    units = {"sample": np.ones_like(snr), "epsilon": snr, "v_prediction": snr + 1}
    return of_x0 / units[prediction]


@lru_cache(maxsize=8)
def _scales_table(process: Process, device: torch.device) -> torch.Tensor:
    """alpha and sigma at each time, (2, train_timesteps) float32."""
    bar = process.alpha_bar
    return torch.from_numpy(np.sqrt([bar, 1 - bar])).float().to(device)
