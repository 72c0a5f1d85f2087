"""Other ways to train the same lifters, on the same poses and under the same ruler: benchmarks.peers.compare."""
