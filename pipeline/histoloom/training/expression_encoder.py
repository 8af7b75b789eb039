"""Training the expression encoder, on the samples of train tiles alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from histoloom.conditions.expression_encoder import ExpressionEncoder, ExpressionVAE
from histoloom.config import Rna
from histoloom.data.expression_values import normalised
from histoloom.errors import HistoloomError
from histoloom.training.loop import train
from histoloom.training.run import Numbers, TrainingRun, epoch_order

_LEAST_STD = 1e-3


def train_expression(config: Rna, table: pd.DataFrame, run: TrainingRun) -> ExpressionEncoder:
    """Fit on samples by genes.

    The loss is the mean squared error over genes, standardised, plus beta times the KL divergence summed over the code.

    Raises
    ------
    HistoloomError
        when there are fewer than two samples, or no gene varies.
    """
    values = normalised(table, config.transform)
    spread = values.std(axis=0, ddof=0)
    varying = spread[spread > _LEAST_STD].sort_values(ascending=False, kind="stable")
    genes = tuple(sorted(varying.index[: config.max_genes]))
    if len(table) < 2 or not genes:
        raise HistoloomError(
            f"An expression encoder needs two samples of the train split that differ; {config.table} has {len(table)} "
            f"whose '{config.key}' is a train tile's. Check the table's keys and tile.split."
        )
    mean = values[list(genes)].mean(axis=0).to_numpy(np.float32)
    std = spread[list(genes)].to_numpy(np.float32)
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(run.seed)
        model = ExpressionVAE(len(genes), config.hidden, config.code).to(run.device)
    none = np.zeros(config.code, np.float32)
    raw = ExpressionEncoder(model, genes, config.transform, config.hidden, mean, std, none, none + 1)
    profiles = torch.from_numpy(raw.standardised(table))

    def loss(step: int, generator: torch.Generator) -> tuple[torch.Tensor, Numbers]:
        index = epoch_order(run.seed, len(profiles), min(config.batch_size, len(profiles)), step)
        clean = profiles[index].to(run.device)
        posterior, log_variance = model.encode(clean)
        noise = torch.randn(posterior.shape, generator=generator).to(run.device)
        rebuilt = model.decoder(posterior + noise * (0.5 * log_variance).exp())
        error = (rebuilt - clean).square().mean()
        kl = 0.5 * (posterior.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        return error + config.beta * kl, {"reconstruction": error.detach(), "kl": kl.detach()}

    train(model, loss, run)
    model.cpu().requires_grad_(False)
    codes = raw.codes(table).to_numpy(np.float32)
    code_std = np.maximum(codes.std(0), _LEAST_STD)  # a dimension that the KL term switched off stays near zero
    return ExpressionEncoder(model, genes, config.transform, config.hidden, mean, std, codes.mean(0), code_std)


def explained_variance(encoder: ExpressionEncoder, table: pd.DataFrame) -> float:
    """Fraction of the standardised profiles' variance (around the train split's mean) that their codes give back."""
    profiles = torch.from_numpy(encoder.standardised(table))
    with torch.inference_mode():
        rebuilt = encoder.model.decoder(encoder.model.encode(profiles)[0])
    return float(1 - (rebuilt - profiles).square().sum() / profiles.square().sum().clamp_min(1e-9))
