"""Networks as the sequences that the methods without edges read: N2N's and Architecture Compression's."""

from raysearch.architecture.sequences.chains import (
    decode_chain,
    encode_sequence,
    valid_chains,
    without_gaps,
)
from raysearch.architecture.sequences.policy import policy_sequence
from raysearch.architecture.sequences.sampling import sample_chains
from raysearch.architecture.sequences.topology import decode_onto, encode_students

__all__ = [
    "decode_chain",
    "decode_onto",
    "encode_sequence",
    "encode_students",
    "policy_sequence",
    "sample_chains",
    "valid_chains",
    "without_gaps",
]
