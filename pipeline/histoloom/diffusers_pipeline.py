"""A package as a pipeline of diffusers: the same engine as `histoloom.load`, and the same pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput

from histoloom.errors import HistoloomError

if TYPE_CHECKING:
    from histoloom.config import Sample
    from histoloom.model import Model
    from histoloom.sampling.given_pictures import Mask, Picture


class HistoloomPipeline(DiffusionPipeline):
    """What `DiffusionPipeline.from_pretrained(folder)` gives of a package, after `import histoloom`.

    Its parts are the package's own folders, where they are classes of diffusers; what is none is loaded from the folder by histoloom. Encoders
    of conditions are loaded from there too. It runs where its parts are; a package without parts of diffusers' runs on the CPU.
    """

    _optional_components = ["autoencoder", "denoiser"]  # noqa: RUF012, as diffusers declares it

    def __init__(
        self,
        scheduler: Any,
        autoencoder: torch.nn.Module | None = None,
        denoiser: torch.nn.Module | None = None,
    ):
        super().__init__()
        self.register_modules(scheduler=scheduler, autoencoder=autoencoder, denoiser=denoiser)
        self._few_steps = False
        self._loaded: tuple[tuple, Model] | None = None

    def use_few_steps(self) -> None:
        """Take the denoiser anew from the folder, with its updates for few steps: a tile then takes a fraction of the time.

        Raises
        ------
        HistoloomError
            when the folder has none.
        """
        from histoloom.api import model_of

        model = model_of(self._folder(), str(self.device), few_steps=True)
        if self.denoiser is not None:
            self.register_modules(denoiser=model.sampler.model.network.network)
        self._few_steps = True

    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        *,
        num_images_per_prompt: int = 1,
        seed: int = 0,
        generator: torch.Generator | None = None,
        mask: Mask | Sequence[Mask] | None = None,
        label: str | Sequence[str] | None = None,
        like: Picture | Sequence[Picture] | None = None,
        mpp: float | None = None,
        cohort: Mapping[str, str] | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple:
        """Make tiles, as `Model.sample` does.

        Parameters
        ----------
        prompt : a caption, or several.
        num_images_per_prompt : tiles of each caption; without a caption, tiles in all.
        seed : as of `Model.sample`. generator : in its place; its initial seed is read, and it is not advanced.
        mask, label, like, mpp, cohort : as of `Model.sample`.
        num_inference_steps, guidance_scale : unstated, those of `Model.settings`. The sampler is histoloom's; of `scheduler` nothing is read.
        output_type : pil, or np for (n, tile_px, tile_px, 3) float32 in [0, 1].

        Raises
        ------
        HistoloomError
            for what `Model.sample` refuses.
        """
        if output_type not in ("pil", "np"):
            raise HistoloomError(f"output_type is {output_type!r}: ask for 'pil' or 'np'.")
        model = self._model()
        stated = {"steps": num_inference_steps, "guidance": guidance_scale}
        settings = _settings(model.settings, {name: value for name, value in stated.items() if value is not None})
        captions = None if prompt is None else [prompt] if isinstance(prompt, str) else [*prompt]
        text = None if captions is None else [one for one in captions for _ in range(num_images_per_prompt)]
        samples = model.sample(
            num_images_per_prompt if text is None else len(text),
            seed if generator is None else generator.initial_seed(),
            text=text, mask=mask, label=label, like=like, mpp=mpp, cohort=cohort, settings=settings,
        )  # fmt: skip
        images: Any = samples.images if output_type == "pil" else samples.array.astype(np.float32) / 255
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Refused: a package's folder also holds its conditions and what it learnt from, which diffusers doesn't know."""
        raise HistoloomError(f"Copy the package's folder, {self.name_or_path}, in place of saving the pipeline.")

    def _model(self) -> Model:
        """The engine around the parts as they are now."""
        key = str(self.device), id(self.denoiser), id(self.autoencoder), self._few_steps
        if self._loaded is None or self._loaded[0] != key:
            from histoloom.api import model_of

            self._loaded = key, model_of(self._folder(), key[0], self._parts(), few_steps=self._few_steps)
        return self._loaded[1]

    def _parts(self) -> dict[str, torch.nn.Module]:
        """Those that diffusers loaded."""
        parts = {name: part for name in self._optional_components if (part := getattr(self, name)) is not None}
        for name, part in parts.items():
            if part.dtype != torch.float32:
                raise HistoloomError(f"{name} is {part.dtype}. Load the pipeline in float32, its default.")
        return parts

    def _folder(self) -> Path:
        folder = Path(str(self.name_or_path))
        if not folder.is_dir():
            raise HistoloomError(
                f"There is no folder '{folder}'. Fetch a hub's package whole (hf download ORG/NAME --local-dir FOLDER), and open FOLDER."
            )
        return folder


def _settings(own: Sample, stated: dict[str, Any]) -> Sample:
    """The model's own settings, checked again with what is stated."""
    return type(own).model_validate(own.model_dump() | stated) if stated else own
