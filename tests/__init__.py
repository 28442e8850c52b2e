"""Tests of minunet. `conftest.py` seals global state, `running.py` runs a call here and in PyTorch, `oracles/` says what is right."""
