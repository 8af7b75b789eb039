"""One network that tells nuclei without a mask, and paints them with one; it learns from tiles and from drawn layouts, and no tile's mask.

A tile is noised, and a denoiser says what noise it sees. From both, the network tells the nuclei. Of another tile, noised so far that its own
nuclei are lost, and a drawn layout, the same network paints a tile. Two critics hold what is told against drawn layouts, and what is painted
against tiles. What is painted must be told as it was drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from histoloom.config.learners import OwnLearner
from histoloom.errors import HistoloomError
from histoloom.learners.learner import Learner, Told, Training
from histoloom.learners.networks import drawn, to_unit
from histoloom.learners.unet import ThreeLevels
from histoloom.slides.stain_mask import NUCLEUS, fit_stain_mask
from histoloom.training.critic import PatchCritic
from histoloom.training.loop import train

_WEIGHTS = "darl.safetensors"
_WIDTH, _BLOCKS = 24, 2
_TIMES, _TOLD_TIMES, _PAINTED_TIMES = 1000, 200, (600, 1000)
"""Steps of the schedule; what is told is noised up to the second, what is painted begins within the third."""
_CYCLE, _ADVERSARIAL = 5.0, 0.2
_FIT_TILES, _SPREAD, _ASPECT = 64, 0.25, 1.6
"""Tiles that the stain is fitted to; of drawn nuclei the deviation of the logarithm of their radius, and the most that they are longer than broad."""


@dataclass(frozen=True)
class Layouts:
    """Ellipses, drawn as large and as dense as nuclei are by their stain.

    radius_px : mean of the half axes. covers : shares of a tile that nuclei take, of which one is drawn.
    """

    radius_px: float
    covers: np.ndarray

    @classmethod
    def of(cls, images: np.ndarray, mpp: float) -> Layouts:
        """Of what the stain of tiles (n, h, w, 3) uint8 shows; nobody's annotations are asked."""
        told = fit_stain_mask(
            (NUCLEUS,), images[np.unique(np.linspace(0, len(images) - 1, _FIT_TILES).astype(int))], mpp
        )
        nuclei = [told.segment(image, mpp).nuclei for image in images]
        areas = np.concatenate([np.bincount(of.ravel())[1:] for of in nuclei])
        if not areas.any():
            raise HistoloomError(
                "The stain of the train tiles shows no nuclei, so nothing tells how layouts are to be drawn."
            )
        return cls(float(np.sqrt(np.median(areas[areas > 0]) / np.pi)), np.array([(of > 0).mean() for of in nuclei]))

    def draw(self, rng: np.random.Generator, side: int) -> np.ndarray:
        """(side, side) bool. Nuclei keep a pixel apart; those of the border are cut."""
        out, (y, x) = np.zeros((side, side), bool), np.mgrid[:side, :side]
        wanted = rng.choice(self.covers)
        for cy, cx, turn in rng.uniform(0, 1, (20 * side, 3)) * (side, side, np.pi):
            if out.mean() >= wanted:
                break
            radius, aspect = self.radius_px * rng.lognormal(0, _SPREAD), rng.uniform(1, _ASPECT)
            along = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)
            across = (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)
            far = np.hypot(along / np.sqrt(aspect), across * np.sqrt(aspect))
            if not out[far < radius + 1].any():
                out |= far < radius
        return out


class SwitchedNorm(nn.Module):
    """Features (b, c, h, w), normalised, then scaled by learned numbers, or by maps of a mask (b, 1, ...) where one is given (Park et al. 2019)."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.InstanceNorm2d(channels)
        self.scale, self.shift = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.of_mask = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.SiLU(), nn.Conv2d(32, 2 * channels, 3, padding=1)
        )

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        x = self.norm(x)
        if mask is None:
            return x * self.scale[:, None, None] + self.shift[:, None, None]
        scale, shift = self.of_mask(F.interpolate(mask, size=x.shape[-2:], mode="area")).chunk(2, 1)
        return x * (1 + scale) + shift


class SwitchedBlock(nn.Module):
    """Norm, SiLU, convolution; with its input added where the channels are as many."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.norm, self.conv = SwitchedNorm(channels_in), nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.residual = channels_in == channels_out

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        made = self.conv(F.silu(self.norm(x, mask)))
        return x + made if self.residual else made


class Switched(nn.Module):
    """The denoiser, and what tells or paints. Pictures are (b, 3, h, w) in [-1, 1], sides multiples of 4."""

    def __init__(self) -> None:
        super().__init__()
        self.denoiser = ThreeLevels(3, 16, _plain)
        self.enter = nn.Conv2d(6, _WIDTH, 3, padding=1)
        self.down = SwitchedBlock(_WIDTH, 2 * _WIDTH)
        self.blocks = nn.ModuleList([SwitchedBlock(2 * _WIDTH, 2 * _WIDTH) for _ in range(2 * _BLOCKS)])
        self.up = SwitchedBlock(3 * _WIDTH, _WIDTH)
        self.told, self.painted = nn.Conv2d(_WIDTH, 1, 1), nn.Conv2d(_WIDTH, 3, 3, padding=1)

    def forward(self, x: torch.Tensor, noise: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Of a noised picture and the noise in it: logits of nuclei (b, 1, h, w), or, of a mask (b, 1, h, w), a picture."""
        fine = self.enter(torch.cat([x, noise], 1))
        y = F.avg_pool2d(self.down(fine, mask), 2)
        for block in self.blocks:
            y = block(y, mask)
        y = self.up(torch.cat([F.interpolate(y, size=fine.shape[-2:]), fine], 1), mask)
        return self.told(F.silu(y)) if mask is None else torch.tanh(self.painted(F.silu(y)))


class _Game(nn.Module):
    """What is trained together. kept : (steps of the schedule,) of the picture's variance that is left."""

    kept: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.switched = Switched()
        self.of_masks, self.of_pictures = PatchCritic(), PatchCritic()
        betas = torch.linspace(1e-6, 1e-2, _TIMES, dtype=torch.float64)
        self.register_buffer("kept", torch.cumprod(1 - betas, 0).float())


@dataclass(frozen=True)
class Darl(Learner):
    """The network, fitted. It looks at a tile once, as it is."""

    model: Switched
    device: str
    tasks = ("mask",)
    learning_rate = 1e-3

    @classmethod
    def fit(cls, images: np.ndarray, truth: np.ndarray, training: Training) -> Self:
        """`truth` is not read."""
        if len(training.classes) != 1:
            raise HistoloomError(
                "The learner 'darl' tells one class from the background. Name one in tile.masks.classes."
            )
        if training.unlabelled is not None:
            images = np.concatenate([images, training.unlabelled])
        run, layouts = training.run, Layouts.of(images, mpp_of(training.told))
        game = drawn(_Game, run)
        net, count = game.switched, training.batch_size

        def loss(step: int, generator: torch.Generator):
            rng = np.random.default_rng([run.seed, step])
            shown, other = (2 * to_unit(images[rng.integers(0, len(images), count)], run.device) - 1 for _ in range(2))
            drawn_masks = np.stack([layouts.draw(rng, images.shape[1]) for _ in range(count)])
            masks = torch.from_numpy(drawn_masks[:, None]).float().to(run.device)

            def noised(pictures: torch.Tensor, least: int, most: int) -> tuple[torch.Tensor, torch.Tensor]:
                kept = game.kept[torch.randint(least, most, (count,), generator=generator)][:, None, None, None].to(
                    run.device
                )
                noise = torch.randn(pictures.shape, generator=generator).to(run.device)
                return kept.sqrt() * pictures + (1 - kept).sqrt() * noise, noise

            x, noise = noised(shown, 0, _TOLD_TIMES)
            seen = net.denoiser(x)
            logits = net(x, seen.detach())
            far, far_noise = noised(other, *_PAINTED_TIMES)
            far_seen = net.denoiser(far)
            painted = net(far, far_seen.detach(), masks)
            again, _ = noised(painted, 0, _TOLD_TIMES)
            back = net(again, net.denoiser(again).detach())
            critic_masks, fooled_masks = game.of_masks.losses(_grey(logits.sigmoid()), _grey(masks))
            critic_pictures, fooled_pictures = game.of_pictures.losses(painted, shown)
            denoising = F.mse_loss(seen, noise) + F.mse_loss(far_seen, far_noise)
            cycle = F.l1_loss(back.sigmoid(), masks)
            fooled = fooled_masks + fooled_pictures
            total = denoising + _CYCLE * cycle + _ADVERSARIAL * fooled + critic_masks + critic_pictures
            return total, {
                "denoising": denoising.detach(),
                "cycle": cycle.detach(),
                "told": logits.detach().sigmoid().mean(),
            }

        train(game, loss, run)
        net.eval().requires_grad_(False)
        return cls(net, run.device)

    def predict(self, images: np.ndarray, ids: Sequence[str] = ()) -> np.ndarray:
        return self.sure_masks(images)[0]

    @torch.inference_mode()
    def chances(self, images: np.ndarray) -> np.ndarray:
        shown = 2 * to_unit(images, self.device) - 1
        nucleus = self.model(shown, self.model.denoiser(shown)).sigmoid().cpu()
        return torch.cat([1 - nucleus, nucleus], 1).numpy()

    def save(self, folder: Path) -> None:
        save_file({name: t.cpu().contiguous() for name, t in self.model.state_dict().items()}, folder / _WEIGHTS)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Self:
        with torch.random.fork_rng(devices=[]):  # weights are drawn, which are replaced
            model = Switched()
        model.load_state_dict(load_file(folder / _WEIGHTS))
        return cls(model.to(device).eval().requires_grad_(False), device)


def mpp_of(told: Told) -> float:
    """The scale of the tiles, µm/px, that the learner is told.

    Raises
    ------
    HistoloomError
        when it is told something else.
    """
    given = dict(told.told) if isinstance(told, OwnLearner) else {}
    mpp = given.pop("mpp", None)
    if given or not isinstance(mpp, (int, float)) or not 0.01 <= mpp <= 100:
        raise HistoloomError(
            "uplift.learner, 'darl': it is told mpp, the scale of the tiles in µm/px, and nothing else."
        )
    return float(mpp)


def _grey(masks: torch.Tensor) -> torch.Tensor:
    """Masks (b, 1, h, w) from 0 to 1 as a critic takes pictures."""
    return (2 * masks - 1).expand(-1, 3, -1, -1)


def _plain(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1), nn.GroupNorm(4, channels_out), nn.SiLU(),
        nn.Conv2d(channels_out, channels_out, 3, padding=1), nn.SiLU(),
    )  # fmt: skip
