"""Benchmarks: every operation and whole networks, ours beside PyTorch. `minunet bench` runs them, docs/benchmarks.md explains them.

session.py    what the command does: starts the measuring processes, gathers their rows, writes results
__main__.py   a measuring process: one number of threads, one instruction set
measure.py    taking turns, ratios, the machine's description
peaks.py      the machine's limits
ops.py networks.py accuracy.py    what is measured
on_gpu.py     the same on a GPU, in the command's own process
rivals.py     the same networks in PyTorch and Keras
report.py     the table on screen, the roofline plot
"""
