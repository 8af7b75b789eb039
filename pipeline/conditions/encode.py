"""Rows to conditions: which encoders there are, and how their arrays become a batch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pipeline.conditions.bus import Conditions, ConditionSpec
from pipeline.conditions.label import encode_labels
from pipeline.conditions.text import TextEncoder, load_text_encoder


@dataclass(frozen=True)
class Encoders:
    """The encoders in use, in the bus's order."""

    classes: tuple[str, ...]
    text: TextEncoder | None
    names: tuple[str, ...]

    def specs(self, drop: dict[str, float]) -> tuple[ConditionSpec, ...]:
        sizes = {"label": ("vector", len(self.classes)), "text": ("sequence", self.text.width if self.text else 0)}
        return tuple(ConditionSpec(name, *sizes[name], drop.get(name, 0.0)) for name in self.names)

    def arrays(self, rows: pd.DataFrame) -> dict[str, np.ndarray]:
        """Encode rows with columns `label` and `caption`.

        Returns
        -------
        `label` (n, classes); `text_tokens` (u, tokens, d) and `text_mask` (u, tokens) of the distinct captions,
        the null first, and `text_index` (n,) into them.
        """
        out: dict[str, np.ndarray] = {}
        if "label" in self.names:
            out["label"] = encode_labels(rows["label"].tolist(), self.classes)
        if "text" in self.names:
            captions = ["", *sorted(set(rows["caption"].fillna("")) - {""})]
            tokens, mask = self.text.encode(captions)
            place = {caption: index for index, caption in enumerate(captions)}
            out["text_tokens"], out["text_mask"] = tokens.numpy(), mask.numpy()
            out["text_index"] = rows["caption"].fillna("").map(place).to_numpy(np.int64)
        return out


def load_encoders(classes: tuple[str, ...], names: tuple[str, ...], folder: Path | str) -> Encoders:
    """The encoders of the named conditions, from the folder that `train_encoders` wrote."""
    text = None
    if "text" in names:
        facts = json.loads((Path(folder) / "encoders.json").read_text(encoding="utf-8"))
        inside = Path(folder) / facts["text"]
        text = load_text_encoder(str(inside) if inside.is_dir() else facts["text"], facts["revision"])
    return Encoders(classes, text, names)


def batch(arrays: dict[str, np.ndarray], index: np.ndarray) -> Conditions:
    """The conditions of rows `index`."""
    vector = torch.from_numpy(arrays["label"][index]) if "label" in arrays else None
    if "text_index" not in arrays:
        return Conditions(vector=vector)
    chosen = arrays["text_index"][index]
    return Conditions(
        sequence=torch.from_numpy(arrays["text_tokens"][chosen]),
        sequence_mask=torch.from_numpy(arrays["text_mask"][chosen]),
        vector=vector,
    )


def null(arrays: dict[str, np.ndarray]) -> Conditions:
    """One row in which no condition is given."""
    vector = torch.zeros(1, arrays["label"].shape[1]) if "label" in arrays else None
    if "text_index" not in arrays:
        return Conditions(vector=vector)
    return Conditions(
        sequence=torch.from_numpy(arrays["text_tokens"][:1]),
        sequence_mask=torch.from_numpy(arrays["text_mask"][:1]),
        vector=vector,
    )
