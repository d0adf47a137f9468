"""Metrics over held-out samples, from a model's raw outputs.

A binary model gives one score a sample, of shape (n,) or (n, 1): the positive class where the score is above
``threshold``, which is 0 (a logit) unless ``test_metric_args`` says otherwise. A model of k classes gives (n, k)
scores, the class being the largest. Segmentations have more dimensions behind. A value that the samples do not
determine is None: never NaN.

Tests hold these to other libraries' results; they are written out here so that a PyTorch plan need not import those.
"""

from appliance.training.metrics.catalogue import Measured, Metric, evaluate, measure, require_metric_arguments
from appliance.training.metrics.pooling import Part, Pooled, pool

__all__ = ["Measured", "Metric", "Part", "Pooled", "evaluate", "measure", "pool", "require_metric_arguments"]
