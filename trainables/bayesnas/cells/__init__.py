"""The one-shot search: super-networks, what is derived from them, and the run that trains them."""
