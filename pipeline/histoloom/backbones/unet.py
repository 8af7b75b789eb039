"""The UNet: diffusers' UNet2DConditionModel, with the conditions wired to its inputs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from huggingface_hub import load_torch_model

from histoloom.backbones.backbone import Backbone, Specs
from histoloom.backbones.control import FOLDER, control_residuals, load_control, new_control
from histoloom.backbones.refit import Inputs, refitted
from histoloom.backbones.spade import install_spade
from histoloom.conditions.batch import Conditions
from histoloom.errors import HistoloomError, with_extra

if TYPE_CHECKING:
    from diffusers.models import UNet2DConditionModel

    from histoloom.config import TrainDenoiser
    from histoloom.config.denoiser_record import DenoiserRecord, MapInput

WEIGHTS = "diffusion_pytorch_model.safetensors"
_PARTS = "diffusion_pytorch_model{suffix}.safetensors"
_CONTROL = "control."
_OF_A_HUB = "Of a hub's pipeline, fetch the whole first: hf download ORG/NAME. What it tells is then taken from it."


def load_weights(network: torch.nn.Module, folder: Path | str) -> None:
    """Fill a network with the weights of a folder, which may be divided into several files."""
    load_torch_model(network, folder, strict=True, filename_pattern=_PARTS)


class UNet(Backbone):
    """A sequence is read by cross-attention and vectors are added to the time embedding. Maps are concatenated to the data, scale and
    shift the decoder's norms (SPADE), or are read by a ControlNet.

    network : the UNet, SPADE's norms in it where `map_input` says so.
    control : the ControlNet beside it; None where no map is read by one.
    """

    low_rank_layers = (
        r"network\..*\.(to_q|to_k|to_v|to_out\.0|conv1|conv2|proj_in|proj_out|time_emb_proj|shared|scale_shift)"
    )

    def __init__(self, network: UNet2DConditionModel, map_channels: int, map_input: MapInput):
        super().__init__()
        self.network = network
        self.map_input = map_input
        self._map = install_spade(network, map_channels) if map_input == "spade" and map_channels else None
        self.control = new_control(network, map_channels) if map_input == "controlnet" and map_channels else None

    @classmethod
    def build(cls, config: TrainDenoiser, specs: Specs, shape: tuple[int, ...]) -> Self:
        """For (channels, px, px). The finest level is convolutional; the coarser ones attend, to the sequence where there is one."""
        from diffusers.models import UNet2DConditionModel

        (channels, px, _), levels = shape, len(config.channels)
        if px % 2 ** (levels - 1):
            raise HistoloomError(
                f"A latent of {px} px cannot be halved {levels - 1} times: use fewer "
                "train_denoiser.channels, or tiles of another size."
            )
        text = text_size(specs)
        vector, maps = len(_channels(specs, "vector")), len(_channels(specs, "map"))
        kind = "CrossAttn" if text else "Attn"
        common, most = math.gcd(*config.channels), min(32, *(max(1, c // 4) for c in config.channels))
        network = UNet2DConditionModel(
            sample_size=px,
            in_channels=channels + (maps if config.map_input == "concat" else 0),
            out_channels=channels,
            block_out_channels=config.channels,
            layers_per_block=config.layers_per_block,
            down_block_types=("DownBlock2D",) + (f"{kind}DownBlock2D",) * (levels - 1),
            mid_block_type="UNetMidBlock2DCrossAttn" if text else "UNetMidBlock2D",
            up_block_types=(f"{kind}UpBlock2D",) * (levels - 1) + ("UpBlock2D",),
            cross_attention_dim=text or 32,
            attention_head_dim=config.attention_head_dim,
            norm_num_groups=max(g for g in range(1, most + 1) if common % g == 0),
            resnet_time_scale_shift="default" if config.time_input == "add" else config.time_input,
            class_embed_type="projection" if vector else None,
            projection_class_embeddings_input_dim=vector or None,
        )
        return cls(network, maps, config.map_input)

    @classmethod
    def load(cls, source: str | Path, record: DenoiserRecord | None = None, revision: str | None = None) -> Self:
        from diffusers.models import UNet2DConditionModel
        from diffusers.utils.logging import disable_progress_bar

        maps = len(_channels(record.conditions, "map")) if record else 0
        map_input = (record.training.map_input if record else None) or "concat"
        disable_progress_bar()  # of divided weights
        try:
            if map_input == "spade" and maps:
                made = cls(UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(source)), maps, map_input)
                load_weights(made.network, source)
                return made
            network = UNet2DConditionModel.from_pretrained(
                source, revision=revision, use_safetensors=True, torch_dtype=torch.float32
            )
            made = cls(network, maps, map_input)
            if made.control is not None:
                made.control = load_control(Path(source))
        except (OSError, ValueError) as error:
            raise HistoloomError(f"No denoiser could be loaded from '{source}': {error}\n{_OF_A_HUB}") from error
        return made

    def save(self, folder: Path) -> None:
        self.network.save_pretrained(folder, safe_serialization=True)
        if self.control is not None:
            self.control.save_pretrained(folder / FOLDER, safe_serialization=True)

    @property
    def channels(self) -> int:
        return self.network.config["out_channels"]

    @property
    def taps(self) -> tuple[str, ...]:
        """The blocks of the decoder."""
        return tuple(f"network.up_blocks.{number}" for number in range(len(self.network.config["block_out_channels"])))

    @property
    def multiple(self) -> int:
        """Each level computes at half the size of the one before."""
        return 2 ** (len(self.network.config["block_out_channels"]) - 1)

    def predict(self, x: torch.Tensor, times: torch.Tensor, given: Conditions) -> torch.Tensor:
        down = middle = None
        if self.control is not None:
            down, middle = control_residuals(self.control, x, times, given)
        elif self._map is not None:
            self._map.value = given.map
        elif given.map is not None:
            x = torch.cat([x, given.map], 1)
        return self.network(
            x,
            times,
            encoder_hidden_states=given.sequence,
            encoder_attention_mask=given.sequence_mask,
            class_labels=given.vector,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        ).sample.float()

    def refit(self, before: Specs, after: Specs) -> tuple[Self, tuple[str, ...]]:
        """Channels are matched by the condition's and the channel's names. A text tower of another width gets new keys and values.

        Raises
        ------
        HistoloomError
            when one of the two has text and the other has none: their blocks differ.
        """
        _check_text(before, after)
        fitted = self._with_inputs_for(after)
        first_control = fitted.control is not None and self.control is None
        new = {n: value for n, value in fitted.state_dict().items() if not (first_control and n.startswith(_CONTROL))}
        weights, names = refitted(self.state_dict(), new, self._inputs(before), self._inputs(after))
        fitted.load_state_dict(weights, strict=not first_control)
        if first_control:  # a copy of the UNet as it is now
            fitted.control = new_control(fitted.network, len(_channels(after, "map")))
            names += [name for name, _ in fitted.named_parameters() if name.startswith(_CONTROL)]
        return fitted, tuple(names)

    def _inputs(self, specs: Specs) -> Inputs:
        maps = _channels(specs, "map")
        data = [("data", str(c)) for c in range(self.channels)]
        return Inputs(_channels(specs, "vector"), maps, data + maps if self.map_input == "concat" else data)

    def _with_inputs_for(self, specs: Specs) -> Self:
        """A new UNet of the same sizes whose inputs take these conditions."""
        from diffusers.models import UNet2DConditionModel

        config, vectors, maps = self.network.config, len(_channels(specs, "vector")), len(_channels(specs, "map"))
        network = UNet2DConditionModel.from_config(
            dict(config)
            | {
                "in_channels": config["out_channels"] + (maps if self.map_input == "concat" else 0),
                "class_embed_type": "projection" if vectors else None,
                "projection_class_embeddings_input_dim": vectors or None,
                "cross_attention_dim": text_size(specs) or config["cross_attention_dim"],
            }
        )
        return type(self)(network, maps, self.map_input)

    def train_control(self, whole: tuple[str, ...]) -> None:
        if self.control is None:
            raise HistoloomError(
                "train_denoiser.adapt is controlnet, and no condition is a map: name one, such as mask, or adapt by lora."
            )
        self.requires_grad_(False)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in whole or name.startswith(_CONTROL))

    def set_attention(self, kind: str) -> str:
        """`auto` takes xformers where its kernels load on this device, else PyTorch's scaled dot product.

        Raises
        ------
        HistoloomError
            when xformers is asked for by name and its kernels don't load.
        """
        on_gpu = self.network.device.type == "cuda"
        if kind == "sdpa" or (kind == "auto" and not on_gpu):
            return "sdpa"
        try:
            if not on_gpu:
                raise RuntimeError("xformers has no CPU kernels")
            for part in filter(None, (self.network, self.control)):
                part.enable_xformers_memory_efficient_attention()
        except (ImportError, RuntimeError, ValueError) as error:
            if kind == "auto":
                return "sdpa"
            raise HistoloomError(
                f"train_denoiser.attention is xformers, and its kernels don't load ({error}). On a machine "
                f"with a GPU, {with_extra('xformers')}, or set attention: auto."
            ) from error
        return "xformers"


def text_size(specs: Specs) -> int | None:
    """Channels of the sequence's tokens; None without a sequence."""
    return next((s.size for s in specs if s.shape == "sequence"), None)


def _check_text(before: Specs, after: Specs) -> None:
    had, has = (text_size(specs) is not None for specs in (before, after))
    if had != has:
        way = "with" if had else "without"
        raise HistoloomError(
            f"train_denoiser.init was trained {way} text: adapt it {way} text in train_denoiser.conditions too."
        )


def _channels(specs: Specs, shape: str) -> list[tuple[str, str]]:
    return [(s.name, c) for s in specs if s.shape == shape for c in (s.channels or map(str, range(s.size)))]
