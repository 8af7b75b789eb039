"""Inception v3 as the literature on FID has it: torch-fidelity's network, and the one published file of weights."""

from __future__ import annotations

import io
from hashlib import sha256
from pathlib import Path

import torch

from histoloom.data.commit import sha256_file
from histoloom.errors import Fault, HistoloomError

URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""Of that file, as several public projects that use it state it; its name carries the first eight digits."""


def read_weights(stated: str | None) -> dict[str, torch.Tensor]:
    """The weights, of the file that is stated or of the published one, which is downloaded once.

    Raises
    ------
    HistoloomError
        when the file can't be had, or is not the published one: its sha256 is compared before anything is read from it.
    """
    path = Path(stated) if stated else Path(torch.hub.get_dir()) / "checkpoints" / Path(URL).name
    try:
        if not stated and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(URL, str(path), hash_prefix=SHA256, progress=False)
        data = path.read_bytes()
    except (OSError, RuntimeError) as error:
        raise HistoloomError(
            f"The weights of inception-v3 could not be had ({error}). Download {URL} and name "
            "the file in evaluate.weights, or use evaluate.features: efficientnet-lite0."
        ) from error
    if (found := sha256(data).hexdigest()) != SHA256:
        raise HistoloomError(
            f"{path} is not the published file of inception-v3's weights: its sha256 is {found}, and that file's "
            f"{SHA256}. Remove it and download {URL}, or use another of what evaluate.features names."
        )
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def check_weights(features: str, weights: str | None) -> list[Fault]:
    """What `load_extractor` would refuse of the file that `evaluate.weights` names."""
    if weights is None:
        return []
    if not Path(weights).is_file():
        return [Fault("params.yaml", f"evaluate.weights: there is no file {weights}.", "mend the path.")]
    if features == "inception-v3" and (found := sha256_file(Path(weights))) != SHA256:
        problem = f"evaluate.weights: {weights} is not inception-v3's published file: its sha256 is {found}."
        return [Fault("params.yaml", problem, f"download {URL}, whose sha256 is {SHA256}.")]
    return []


def build_inception(state: dict[str, torch.Tensor]) -> torch.nn.Module:
    """torch-fidelity's Inception v3 with these weights, frozen."""
    from torch_fidelity import feature_extractor_inceptionv3 as fidelity

    fetch = fidelity.load_state_dict_from_url
    # Its own way downloads unhashed, and unpickles a file.
    fidelity.load_state_dict_from_url = lambda *_, **__: state
    try:
        return fidelity.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    finally:
        fidelity.load_state_dict_from_url = fetch
