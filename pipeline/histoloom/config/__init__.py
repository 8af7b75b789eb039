"""params.yaml and cluster.yaml, parsed once into frozen models; an unknown key is an error.

Every choice that changes a result is in params.yaml, one section per stage; how a machine runs the work is in
cluster.yaml, on which no stage depends.
"""

from histoloom.config.base import Guided, Section
from histoloom.config.cluster import Cluster
from histoloom.config.emit import Emit
from histoloom.config.encode import Encode
from histoloom.config.evaluate import Evaluate
from histoloom.config.filter import Filter
from histoloom.config.load import check_cluster, check_params, load_cluster, load_params
from histoloom.config.params import Params
from histoloom.config.plan import Change, Edit, Plan, Request
from histoloom.config.program import Where
from histoloom.config.report import Report
from histoloom.config.sample import Sample
from histoloom.config.sample_slides import FromImage, SampleSlides, WovenSlide
from histoloom.config.tile import Labels, Masks, Region, Split, Tile, Tissue
from histoloom.config.tile_sets import TileSet
from histoloom.config.train_autoencoder import TrainAutoencoder
from histoloom.config.train_denoiser import LossWeight, TrainDenoiser
from histoloom.config.train_encoders import Genotype, ImageTower, Rna, Text, TrainEncoders
from histoloom.config.train_filters import TrainFilters
from histoloom.config.uplift import Uplift
