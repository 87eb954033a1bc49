"""The method as PyTorch computes it straightforwardly: what ours is compared with."""
