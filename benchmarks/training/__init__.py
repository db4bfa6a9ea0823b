"""What a training step costs: lobit beside PyTorch and Brevitas, the same nets in one run. `python -m benchmarks.training`."""
