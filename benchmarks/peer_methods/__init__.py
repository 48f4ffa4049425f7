"""What `benchmarks/peers.py` compares: one file a peer, and what they share."""
