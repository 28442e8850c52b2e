"""Noises, each in its own file: how it is drawn, and which loss recovers the clean image from noisy ones alone.

    noise       what it does to a pixel                                 loss                clean image is the
    gaussian    adds a normal number                                    squared_error       mean
    brown       adds normal numbers that neighbours share               squared_error       mean
    poisson     counts photons                                          squared_error       mean
    bernoulli   drops pixels at random                                  squared_error of    mean of those that are there
                                                                        the pixels there
    text        covers it with letters                                  absolute_error      median
    impulse     replaces it by a random colour                          annealed_error      mode
    rendering   scales its light by a heavy-tailed number               hdr_error           mean
    mri         leaves out frequencies, the others grow                 squared_error       mean

Images are (C, *spatial) float32 in [−0.5, 0.5]. Noise may leave that range and is never clipped: clipping moves the mean, and the mean is
what the squared error learns.

All of Lehtinen et al. 2018 (arXiv:1803.04189), sections 3.1 to 3.4 and the appendix, but for the rendering noise, which stands in for a
renderer.
"""

from minunet.data.noise.base import Noise
from minunet.data.noise.bernoulli import Bernoulli
from minunet.data.noise.brown import Brown
from minunet.data.noise.gaussian import Gaussian
from minunet.data.noise.impulse import Impulse
from minunet.data.noise.mri import Mri
from minunet.data.noise.poisson import Poisson
from minunet.data.noise.rendering import Rendering
from minunet.data.noise.text import Text

NOISES: dict[str, type[Noise]] = {
    "gaussian": Gaussian,
    "brown": Brown,
    "poisson": Poisson,
    "bernoulli": Bernoulli,
    "text": Text,
    "impulse": Impulse,
    "rendering": Rendering,
    "mri": Mri,
}

__all__ = ["NOISES", "Bernoulli", "Brown", "Gaussian", "Impulse", "Mri", "Noise", "Poisson", "Rendering", "Text"]
