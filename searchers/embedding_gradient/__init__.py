"""Architecture Compression (ICLR 2019 submission): gradient descent in a learned embedding of architectures."""
