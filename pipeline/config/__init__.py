"""params.yaml and cluster.yaml, parsed once into frozen models; an unknown key is an error.

Every choice that changes a result is in params.yaml, one section per stage; how a machine runs the work is in
cluster.yaml, on which no stage depends.
"""

from pipeline.config.encoders import Genotype, ImageTower, Rna, Text, TrainEncoders
from pipeline.config.models import Encode, LossWeight, TrainAutoencoder, TrainDenoiser
from pipeline.config.params import Cluster, Params, check_cluster, check_params, load_cluster, load_params
from pipeline.config.plan import Change, Edit, Plan, Request, Where
from pipeline.config.product import Emit, Evaluate, Filter, Report, Sample, TrainFilters
from pipeline.config.slides import FromImage, SampleSlides, WovenSlide
from pipeline.config.tile import Labels, Masks, Region, Split, Tile, Tissue
from pipeline.config.uplift import Uplift

__all__ = [
    "Change",
    "Cluster",
    "Edit",
    "Emit",
    "Encode",
    "Evaluate",
    "Filter",
    "FromImage",
    "Genotype",
    "ImageTower",
    "Labels",
    "LossWeight",
    "Masks",
    "Params",
    "Plan",
    "Region",
    "Report",
    "Request",
    "Rna",
    "Sample",
    "SampleSlides",
    "Split",
    "Text",
    "Tile",
    "Tissue",
    "TrainAutoencoder",
    "TrainDenoiser",
    "TrainEncoders",
    "TrainFilters",
    "Uplift",
    "Where",
    "WovenSlide",
    "check_cluster",
    "check_params",
    "load_cluster",
    "load_params",
]
