"""The encoder of expression profiles: a beta-VAE (Higgins et al. 2017), with what was fitted before it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from histoloom.data.commit import write_json
from histoloom.data.expression_values import normalised
from histoloom.errors import HistoloomError


class ExpressionVAE(nn.Module):
    """Profiles (b, genes) to codes (b, code) and back."""

    def __init__(self, genes: int, hidden: tuple[int, ...], code: int):
        super().__init__()
        self.encoder = _layers((genes, *hidden), 2 * code)
        self.decoder = _layers((code, *reversed(hidden)), genes)

    def encode(self, profiles: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log variance of the posterior."""
        mean, log_variance = self.encoder(profiles).chunk(2, -1)
        return mean, log_variance.clamp(-20, 10)


def _layers(sizes: tuple[int, ...], out: int) -> nn.Sequential:
    inner = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.LayerNorm(b), nn.SiLU())]
    return nn.Sequential(*inner, nn.Linear(sizes[-1], out))


@dataclass(frozen=True)
class ExpressionEncoder:
    """A fitted encoder.

    genes : names, in the order of the model's inputs.
    mean, std : (genes,) of normalised expression in the train split.
    code_mean, code_std : (code,) of the posterior means in the train split.
    """

    model: ExpressionVAE
    genes: tuple[str, ...]
    transform: str
    hidden: tuple[int, ...]
    mean: np.ndarray
    std: np.ndarray
    code_mean: np.ndarray
    code_std: np.ndarray

    def standardised(self, table: pd.DataFrame) -> np.ndarray:
        """(n, genes) float32. A gene that the table lacks takes the train split's mean."""
        values = normalised(table, self.transform).reindex(columns=list(self.genes)).to_numpy(np.float32)
        return np.nan_to_num((values - self.mean) / self.std)

    @torch.inference_mode()
    def codes(self, table: pd.DataFrame) -> pd.DataFrame:
        """A code a sample: the posterior's mean, at the train split's unit variance."""
        means = self.model.encode(torch.from_numpy(self.standardised(table)))[0].numpy()
        names = [f"code {number}" for number in range(means.shape[1])]
        return pd.DataFrame((means - self.code_mean) / self.code_std, index=table.index, columns=names)

    def fit_of(self, table: pd.DataFrame) -> dict[str, int]:
        """How a table's genes agree with the encoder's, by name.

        genes : of the encoder
        genes_missing : of the encoder, and not in the table; `codes` fills them with their mean
        genes_unknown : of the table, and not in the encoder
        """
        theirs = set(table.columns)
        return {
            "genes": len(self.genes),
            "genes_missing": len(set(self.genes) - theirs),
            "genes_unknown": len(theirs - set(self.genes)),
        }

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        fitted = {k: torch.from_numpy(getattr(self, k)) for k in ("mean", "std", "code_mean", "code_std")}
        weights = {f"vae.{k}": v.contiguous() for k, v in self.model.state_dict().items()}
        save_file(fitted | weights, folder / "model.safetensors")
        write_json(
            folder / "config.json",
            {"genes": self.genes, "transform": self.transform, "hidden": self.hidden, "code": len(self.code_mean)},
        )


def load_expression_encoder(folder: Path) -> ExpressionEncoder:
    """Load what `train_encoders` wrote.

    Raises
    ------
    HistoloomError
        when the folder holds no expression encoder.
    """
    try:
        facts = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        state = load_file(folder / "model.safetensors")
        model = ExpressionVAE(len(facts["genes"]), tuple(facts["hidden"]), facts["code"])
        model.load_state_dict({k.removeprefix("vae."): v for k, v in state.items() if k.startswith("vae.")})
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise HistoloomError(
            f"train_encoders.rna.init: {folder} holds no expression encoder ({error}). Name the rna/ folder of an "
            "earlier train_encoders, or set it to train."
        ) from error
    fitted = {k: state[k].numpy() for k in ("mean", "std", "code_mean", "code_std")}
    model = model.eval().requires_grad_(False)
    return ExpressionEncoder(model, tuple(facts["genes"]), facts["transform"], tuple(facts["hidden"]), **fitted)
