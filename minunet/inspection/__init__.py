"""Looking into a network: its layers and their cost, what its pixels see, what its layers answer, which parameters do nothing."""

from minunet.inspection.feature_maps import feature_maps
from minunet.inspection.gradients import unused_parameters
from minunet.inspection.receptive_field import Reach
from minunet.inspection.summary import Summary, summary

__all__ = ["Reach", "Summary", "feature_maps", "summary", "unused_parameters"]
