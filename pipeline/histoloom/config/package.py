"""What the folder of a trained model tells of itself, read from its JSON files and without torch.

A name in params stands for a folder: a model that comes with histoloom, one that somebody packaged, or a pipeline of Stable
Diffusion's form. A hub's id stands for such a pipeline once this machine has fetched it. Of any other nothing is known.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from histoloom.errors import HistoloomError

PACKAGED = "facts.json"
"""The file that makes a folder of models a package."""
TARGET_FACTS = "target.json"
MODEL_INDEX = "model_index.json"
"""The file that makes a folder a pipeline, as diffusers writes it."""
LATENT_SCALE = "latents.json"
"""The file beside an autoencoder that holds the mean and deviation of its latents."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_WEIGHTS = {
    "autoencoder": "diffusion_pytorch_model*.safetensors",
    "denoiser": "diffusion_pytorch_model*.safetensors",
    "encoders/image": "model.safetensors",
    "encoders/rna": "model.safetensors",
    "encoders/text": "*.safetensors",
}
TILE_ENCODER = "TileEncoder"
"""What the configuration of an encoder of tiles calls itself."""
_IN_PIPELINE = {"denoiser": "unet", "autoencoder": "vae", "encoders/text": "text_encoder"}
_WHOLE = re.compile(r"diffusion_pytorch_model(-\d+-of-\d+)?\.safetensors")
_ARCHITECTURES = {"AutoencoderKL": "kl", "AutoencoderTiny": "tiny"}


def root() -> Path:
    """Where packaged models lie: beside this one in an installed package, else at the repository's top."""
    here = Path(__file__).parents[1] / "pretrained"
    return here if here.is_dir() else Path(__file__).parents[3] / "pretrained"


def package_names() -> list[str]:
    """The models that come with histoloom."""
    return sorted(place.name for place in root().iterdir() if place.is_dir()) if root().is_dir() else []


def packaged(source: str, part: str, revision: str | None = None) -> str:
    """The folder of a part (autoencoder, denoiser, encoders/text, encoders/rna, encoders/image) of a packaged model or a pipeline, which `source`
    names or whose folder it is; any other source as it is.

    revision : of a hub's pipeline.
    """
    folders = [root() / source / part, Path(source) / part] if source else []
    if source and (pipeline := _pipeline(source, revision)) and part in _IN_PIPELINE:
        folders.append(pipeline / _IN_PIPELINE[part])
    return str(next((folder for folder in folders if folder.is_dir()), source))


def is_pipeline(folder: Path) -> bool:
    """Whether a folder is a pipeline of Stable Diffusion's form. A package, which diffusers opens too, is none."""
    return (folder / MODEL_INDEX).is_file() and not (folder / PACKAGED).is_file()


def _pipeline(source: str, revision: str | None) -> Path | None:
    """The folder of a pipeline; of a hub's id, where the hub's cache keeps it."""
    if is_pipeline(Path(source)):
        return Path(source)
    if not is_hub_id(source) or Path(source).exists():
        return None
    from huggingface_hub import try_to_load_from_cache

    index = try_to_load_from_cache(source, MODEL_INDEX, revision=revision)
    return Path(index).parent if isinstance(index, str) else None


def part_folder(source: str, part: str, revision: str | None = None) -> Path | None:
    """The folder that `packaged` finds; None of a hub's id that it doesn't find, and of what is no folder."""
    folder = Path(packaged(source, part, revision))
    return folder if source and folder.is_dir() else None


def has_part(source: str, part: str, revision: str | None = None) -> bool:
    """Whether `source` is a whole package, or a pipeline, that has this part."""
    return packaged(source, part, revision) != source


def is_hub_id(source: str) -> bool:
    """Whether it reads as ORG/NAME."""
    return bool(_HUB_ID.fullmatch(source))


def autoencoder_facts(folder: Path) -> dict[str, Any]:
    """`down_factor`, `latent_channels` and `arch` of an autoencoder; of a pipeline's also that it is taken as it is.

    Raises
    ------
    HistoloomError
        when the folder is damaged; as do all that read one.
    """
    config = read_json(folder / "config.json")
    check_weights(folder, "autoencoder")
    name = told(config, "_class_name", folder / "config.json")
    if name not in _ARCHITECTURES:
        raise HistoloomError(f"'{folder}' is a {name}; AutoencoderKL and AutoencoderTiny are supported.")
    levels = config.get("block_out_channels") or told(config, "encoder_block_out_channels", folder / "config.json")
    facts = {
        "down_factor": 2 ** (len(levels) - 1),
        "latent_channels": told(config, "latent_channels", folder / "config.json"),
        "arch": _ARCHITECTURES[name],
    }
    return facts | ({"scale": "kept", "steps": 0} if is_pipeline(folder.parent) else {})


def latent_scale(folder: Path) -> tuple[list[float], list[float]] | None:
    """Mean and deviation of each latent channel: as measured, or as a pipeline states them; None where nothing tells."""
    path = folder / LATENT_SCALE
    if path.is_file():
        scale = read_json(path)
        return told(scale, "mean", path), told(scale, "std", path)
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    if not config.get("scaling_factor") or not is_pipeline(folder.parent):
        return None  # elsewhere it may be no more than diffusers' default
    channels = told(config, "latent_channels", folder / "config.json")
    return [float(config.get("shift_factor") or 0)] * channels, [1 / config["scaling_factor"]] * channels


def text_facts(folder: Path) -> dict[str, Any]:
    """`max_tokens` and `padding` of a package's text tower, where they were stated; of a pipeline's, that padding is read."""
    check_weights(folder, "encoders/text")
    if is_pipeline(folder.parent):
        kind = read_json(folder / "config.json").get("model_type")
        if kind != "clip_text_model":
            raise HistoloomError(f"'{folder}' is a {kind}; a pipeline's text tower must be a CLIPTextModel.")
        if not (folder.parent / "tokenizer").is_dir():
            raise HistoloomError(_damaged(folder.parent, "it has a text_encoder and no tokenizer"))
        return {"padding": "read"}
    path = folder.parent / "encoders.json"
    found = {"padding": "masked"} | read_json(path).get("text", {}) if path.is_file() else {}
    return {name: found[name] for name in ("max_tokens", "padding") if found.get(name) is not None}


def rna_facts(folder: Path) -> dict[str, Any]:
    """`transform`, `hidden` and `code` of an encoder of expression."""
    check_weights(folder, "encoders/rna")
    path = folder / "config.json"
    config = read_json(path)
    told(config, "genes", path)
    return {name: told(config, name, path) for name in ("transform", "hidden", "code")}


def tile_encoder_of(source: str) -> Path | None:
    """The folder of an encoder of tiles that a source names: a package's, or the folder itself; None of any other source."""
    folder = part_folder(source, "encoders/image")
    if folder is None or has_part(source, "encoders/image"):
        return folder
    try:
        return folder if read_json(folder / "config.json").get("_class_name") == TILE_ENCODER else None
    except HistoloomError:
        return None  # which is no folder of ours; who loads it says what is wrong


def image_facts(folder: Path) -> dict[str, Any]:
    """`image_px`, `width` and `size` of an encoder of tiles."""
    check_weights(folder, "encoders/image")
    config = read_json(folder / "config.json")
    return {name: told(config, name, folder / "config.json") for name in ("image_px", "width", "size")}


def context_length(folder: Path) -> int:
    """Tokens that a folder's text tower reads at once; CLIP's 77 where it doesn't tell."""
    found = _of_text_tower(folder, "context_length", "max_position_embeddings")
    return 77 if found is None else found


def text_width(folder: Path) -> int | None:
    """Channels of the tokens that a folder's text tower gives; None where it doesn't tell."""
    return _of_text_tower(folder, "width", "hidden_size")


def _of_text_tower(folder: Path, in_open_clip: str, in_transformers: str) -> int | None:
    """A number of a text tower's configuration, under the name that either library gives it."""
    for name, *keys in (
        ("open_clip_config.json", "model_cfg", "text_cfg", in_open_clip),
        ("config.json", "text_config", in_transformers),
        ("config.json", in_transformers),
    ):
        found: Any = read_json(folder / name) if (folder / name).is_file() else {}
        for key in keys:
            found = found.get(key, {}) if isinstance(found, dict) else {}
        if isinstance(found, int):
            return found
    return None


def scales_of(source: str) -> tuple[float, ...]:
    """The scales that a packaged model was trained at, µm/px: that of its tile.mpp, then those of its tiles; none where it doesn't tell."""
    for folder in (root() / source, Path(source)):
        if (folder / PACKAGED).is_file():
            try:
                params = YAML(typ="safe").load((folder / "params.yaml").read_text(encoding="utf-8"))
                of_tiles = {float(row["mpp"]) for row in read_json(folder / PACKAGED).get("tiles", ())}
                return float(params["tile"]["mpp"]), *sorted(of_tiles - {float(params["tile"]["mpp"])})
            except (HistoloomError, YAMLError, OSError, UnicodeDecodeError, KeyError, TypeError, ValueError):
                return ()
    return ()


def read_json(path: Path) -> dict[str, Any]:
    """A model's JSON file.

    Raises
    ------
    HistoloomError
        when it is missing or damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HistoloomError(_damaged(path, f"it can't be read ({error})")) from error
    if not isinstance(found, dict):
        raise HistoloomError(_damaged(path, "it holds no mapping"))
    return found


def told(facts: dict[str, Any], name: str, path: Path) -> Any:
    """The value that a model's JSON file must hold under a name.

    Raises
    ------
    HistoloomError
        when it isn't there.
    """
    if not isinstance(facts, dict) or name not in facts:
        raise HistoloomError(_damaged(path, f"it doesn't tell '{name}'"))
    return facts[name]


def check_weights(folder: Path, part: str) -> None:
    """Refuse a part whose files of weights are missing, broken off, or pointers to files that weren't fetched."""
    paths = sorted(folder.glob(_WEIGHTS[part]))
    if not paths:
        raise HistoloomError(_damaged(folder, f"it holds no {_WEIGHTS[part]}"))
    if part in ("autoencoder", "denoiser") and not any(_WHOLE.fullmatch(path.name) for path in paths):
        raise HistoloomError(
            f"'{folder}' holds weights of a variant alone, {paths[0].name}: fetch diffusion_pytorch_model.safetensors too."
        )
    for index in sorted(folder.glob("*.safetensors.index.json")):
        for name in sorted({*read_json(index).get("weight_map", {}).values()}):
            if not (folder / name).is_file():
                raise HistoloomError(_damaged(folder, f"{index.name} names {name}, which isn't there"))
    for path in paths:
        size = path.stat().st_size
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = stream.read(length) if 8 + length <= size else b""
        try:
            ends = [entry["data_offsets"][1] for name, entry in json.loads(header).items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            raise HistoloomError(_damaged(path, "it is no whole file of safetensors")) from None
        if 8 + length + max(ends, default=0) != size:
            raise HistoloomError(_damaged(path, f"it breaks off or goes on too far, at {size} bytes"))


def _damaged(path: Path, how: str) -> str:
    return f"{path} is damaged: {how}."
