"""Every algorithm keeps the public contract."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from raysearch.architecture import SearchSpace
from searchers.algorithm import Algorithm, Observation, Proposal
from searchers.bayes_compression import BayesCompressionAlgorithm
from searchers.bayes_nas import BayesNASAlgorithm
from searchers.embedding_gradient.algorithm import EmbeddingGradientAlgorithm
from searchers.evolution import EvolutionAlgorithm
from searchers.gp import GPAlgorithm
from searchers.multi_kernel_bo.algorithm import MultiKernelBOAlgorithm
from searchers.n2n.algorithm import N2NAlgorithm
from searchers.optuna import TPEAlgorithm
from searchers.prune import PruneAlgorithm
from searchers.random import RandomAlgorithm
from searchers.testing import NUM_STEPS, AlgorithmContract, make_chain_space
from searchers.uniform import UniformAlgorithm


class Case(AlgorithmContract):
    """An algorithm by its class and options; the space is a chain of four layers within a budget unless a case says otherwise.

    Attributes:
        algorithm: (space, seed=) -> a fresh algorithm.
        space: () -> a space of millions of students.
    """

    algorithm: Callable[..., Algorithm]
    space: Callable[[], SearchSpace] = staticmethod(
        partial(make_chain_space, (8, 8, 8, 8), budget={"params": 0.3})
    )

    def make_space(self):
        return self.space()

    def make_algorithm(self, space, seed):
        return self.algorithm(space, seed=seed)


def case(kind, **options):
    """What an algorithm of a case is made by."""
    return staticmethod(partial(kind, **options))


FREE = staticmethod(AlgorithmContract().make_space)
"""Without a budget."""
TINY = {
    "num_initial": 5,
    "channels": 4,
    "embedding": 4,
    "hidden": 16,
    "pretrain_steps": 5,
    "fit_steps": 5,
}
FEW = {"num_starts": 3, "num_local": 3, "descent_steps": 5, "batch_size": 2}


class TestRandom(Case):
    algorithm = case(RandomAlgorithm)
    space = FREE


class TestEvolution(Case):
    algorithm = case(EvolutionAlgorithm, population=6, tournament=3)
    space = FREE


class TestGP(Case):
    algorithm = case(GPAlgorithm, num_initial=5, num_candidates=32)


class TestMultiKernelBO(Case):
    algorithm = case(
        MultiKernelBOAlgorithm,
        num_initial=6,
        num_candidates=32,
        num_kernels=2,
        batch_size=2,
        refit_every=4,
    )


class TestFaithfulMultiKernelBO(Case):
    unique = False
    covers_space = False
    algorithm = case(
        MultiKernelBOAlgorithm, faithful=True, num_candidates=32, num_kernels=2, encoder="mlp"
    )
    space = FREE


class TestEmbeddingGradient(Case):
    algorithm = case(EmbeddingGradientAlgorithm, **TINY, **FEW)


class TestEmbeddingGradientOfFreeChains(Case):
    edits = False
    algorithm = case(EmbeddingGradientAlgorithm, chains=True, **TINY, **{**FEW, "num_local": 2})
    space = staticmethod(partial(make_chain_space, (8, 8, 8), budget={"params": 0.3}))


class TestFaithfulEmbeddingGradient(Case):
    covers_space = False
    algorithm = case(EmbeddingGradientAlgorithm, faithful=True, chains=False, **TINY)
    space = FREE


class TestN2NWithinABudget(Case):
    covers_space = False  # stage two keeps what stage one removed, and a policy that repeats itself ends the search
    algorithm = case(N2NAlgorithm, num_trials=NUM_STEPS, rollouts=2)


class TestN2N(TestN2NWithinABudget):
    space = staticmethod(partial(make_chain_space, (8, 8, 12, 12), grouping="by_size"))


class TestTPE(Case):
    algorithm = case(TPEAlgorithm, num_initial=4)
    space = FREE


class TestUniform(Case):
    covers_space = False
    algorithm = case(UniformAlgorithm)
    space = FREE


class TestBayesNAS(AlgorithmContract):
    covers_space = False
    kind = BayesNASAlgorithm

    def make_algorithm(self, space, seed):
        """With the runs behind it: students are all that the contract asks of."""
        algorithm = self.kind(space, seed=seed, lambdas=[0.01, 0.02])
        for place in range(2):
            run = algorithm.ask_run()
            texts = map(str, space.sample(NUM_STEPS, seed=place))
            found = [{"architecture": text, "reward": 0.1 * place} for text in texts]
            told = {"extra": run.extra, "details": {"students": found}}
            algorithm.tell_run(Observation(run.architecture, 0.5, 1.0, "full", **told))
        return algorithm


class TestBayesCompression(TestBayesNAS):
    kind = BayesCompressionAlgorithm


class TestPrune(AlgorithmContract):
    covers_space = False

    def make_algorithm(self, space, seed):
        def pruned(forms):
            students = space.sample(len(forms), seed=0)
            return [
                Proposal(str(one), {"channels": f}) for one, f in zip(students, forms, strict=True)
            ]

        return PruneAlgorithm(space, pruned, seed=seed)
