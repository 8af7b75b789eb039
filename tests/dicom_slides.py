"""Real tiny DICOM slides: one file a level, tiled whole, JPEG inside."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import JPEGBaseline8Bit, VLWholeSlideMicroscopyImageStorage, generate_uid

from tests.build import tissue_picture

_TILE = 64


def make_dicom_slide(
    folder,
    name: str = "level",
    *,
    side: int = 256,
    mpp: float = 1.0,
    levels: int = 2,
    seed: int = 0,
    series: str = "",
    flavour: str = "VOLUME",
) -> list[Path]:
    """Draw a slide and write its series, `NAME-0.dcm`, `NAME-1.dcm`, ...; the finest level first.

    Parameters
    ----------
    mpp : µm/px of the finest level.
    series : its SeriesInstanceUID; '' makes one of name and seed.
    flavour : the third value of ImageType, such as VOLUME or LABEL.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    series = series or generate_uid(entropy_srcs=[name, str(seed)])
    picture, paths = Image.fromarray(tissue_picture(side, side, seed)), []
    for level in range(levels):
        paths.append(folder / f"{name}-{level}.dcm")
        pixels = np.asarray(picture.resize((side >> level,) * 2, Image.Resampling.BOX))
        _write_level(paths[-1], pixels, mpp * 2**level, series, (flavour, "NONE" if level == 0 else "RESAMPLED"))
    return paths


def _write_level(path: Path, pixels: np.ndarray, mpp: float, series: str, kind: tuple[str, str]) -> None:
    uid = generate_uid(entropy_srcs=[series, path.name])
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = VLWholeSlideMicroscopyImageStorage, uid
    meta.TransferSyntaxUID = JPEGBaseline8Bit
    one = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    one.SOPClassUID, one.SOPInstanceUID, one.Modality = VLWholeSlideMicroscopyImageStorage, uid, "SM"
    one.StudyInstanceUID, one.SeriesInstanceUID = generate_uid(entropy_srcs=["study"]), series
    one.FrameOfReferenceUID = generate_uid(entropy_srcs=["frame", series])
    one.ImageType = ["ORIGINAL" if kind[1] == "NONE" else "DERIVED", "PRIMARY", *kind]
    one.Rows = one.Columns = _TILE
    one.TotalPixelMatrixRows, one.TotalPixelMatrixColumns = pixels.shape[:2]
    one.TotalPixelMatrixFocalPlanes, one.DimensionOrganizationType = 1, "TILED_FULL"
    one.ImagedVolumeHeight, one.ImagedVolumeWidth = (side * mpp / 1000 for side in pixels.shape[:2])
    one.SamplesPerPixel, one.PhotometricInterpretation, one.PlanarConfiguration = 3, "YBR_FULL_422", 0
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 8, 8, 7, 0
    one.LossyImageCompression = "01"
    one.SharedFunctionalGroupsSequence = Sequence([Dataset()])
    measures = Dataset()
    measures.PixelSpacing, measures.SliceThickness = [mpp / 1000, mpp / 1000], 0.001
    one.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence = Sequence([measures])
    path_of_light = Dataset()
    path_of_light.OpticalPathIdentifier = "1"
    one.OpticalPathSequence, one.NumberOfOpticalPaths = Sequence([path_of_light]), 1
    frames = list(_frames(pixels))
    one.NumberOfFrames, one.PixelData = len(frames), encapsulate(frames)
    one["PixelData"].VR = "OB"
    one.save_as(path, enforce_file_format=True)


def _frames(pixels: np.ndarray):
    for top in range(0, pixels.shape[0], _TILE):
        for left in range(0, pixels.shape[1], _TILE):
            tile, stream = np.full((_TILE, _TILE, 3), 255, np.uint8), io.BytesIO()
            part = pixels[top : top + _TILE, left : left + _TILE]
            tile[: part.shape[0], : part.shape[1]] = part
            Image.fromarray(tile).save(stream, "JPEG", quality=95, subsampling="4:2:2")
            yield stream.getvalue()
