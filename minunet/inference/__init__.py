"""From a trained model to masks or clean images: tiles for images of any size, averaging over symmetries, cleaning, writing."""

from minunet.inference.denoiser import Denoiser
from minunet.inference.postprocess import components, fill_holes, keep_largest, remove_small
from minunet.inference.segmenter import Segmenter
from minunet.inference.symmetries import average_symmetries
from minunet.inference.tiles import predict_tiles
from minunet.inference.write import bit_depth, mask_path, write_image, write_mask

__all__ = [
    "Denoiser",
    "Segmenter",
    "average_symmetries",
    "bit_depth",
    "components",
    "fill_holes",
    "keep_largest",
    "mask_path",
    "predict_tiles",
    "remove_small",
    "write_image",
    "write_mask",
]
