"""Images, masks and noise: where they come from, how they are changed at random, how they reach the network in batches."""

from minunet.data.benchmarks import DSB2018, ISBI2012, SOURCES, Hippocampus
from minunet.data.blind_spot import BlindSpot
from minunet.data.cells import GeneratedCells
from minunet.data.dataset import DataError, SegmentationDataset, Subset, fingerprint, split
from minunet.data.folder import ImageMaskFolder
from minunet.data.images import image_files, pixel_type, read_image, read_mask
from minunet.data.loader import DataLoader
from minunet.data.noise import NOISES, Noise
from minunet.data.pictures import PicturePairs, Pictures, Span, random_window
from minunet.data.transforms import Augment, Standardize, random_crop
from minunet.data.volumes import VolumeFolder, read_volume
from minunet.data.weights import border_weights, part_touching

__all__ = [
    "DSB2018",
    "ISBI2012",
    "NOISES",
    "SOURCES",
    "Augment",
    "BlindSpot",
    "DataError",
    "DataLoader",
    "GeneratedCells",
    "Hippocampus",
    "ImageMaskFolder",
    "Noise",
    "PicturePairs",
    "Pictures",
    "SegmentationDataset",
    "Span",
    "Standardize",
    "Subset",
    "VolumeFolder",
    "border_weights",
    "fingerprint",
    "image_files",
    "part_touching",
    "pixel_type",
    "random_crop",
    "random_window",
    "read_image",
    "read_mask",
    "read_volume",
    "split",
]
