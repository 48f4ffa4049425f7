"""N2N: REINFORCE removes layers, then shrinks them (Ashok, Rhinehart, Beainy and Kitani, "N2N Learning: Network to Network Compression
via Policy Gradient Reinforcement Learning", ICLR 2018)."""
