"""How much relay costs: `python benchmarks/bench.py`."""
