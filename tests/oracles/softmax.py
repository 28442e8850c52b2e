"""Oracles of softmax: one line of classes at a time, numbers kept in range by the largest."""

import math

import numpy as np


def _line(values):
    largest = max(values)
    total = math.fsum(math.exp(v - largest) for v in values)
    return [v - largest - math.log(total) for v in values]


def log_softmax(x, dim):
    return np.apply_along_axis(_line, dim, x) if x.size and x.ndim else np.zeros(x.shape)


def softmax(x, dim):
    return np.exp(log_softmax(x, dim))
