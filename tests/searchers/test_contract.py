"""Every algorithm keeps the public contract."""

from __future__ import annotations

from searchers.algorithm import Observation, Proposal
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


class TestRandom(AlgorithmContract):
    def make_algorithm(self, space, seed):
        return RandomAlgorithm(space, seed=seed)


class TestEvolution(AlgorithmContract):
    def make_algorithm(self, space, seed):
        return EvolutionAlgorithm(space, seed=seed, population=6, tournament=3)


class TestGP(AlgorithmContract):
    def make_space(self):
        return make_chain_space((8, 8, 8, 8), budget={"params": 0.3})

    def make_algorithm(self, space, seed):
        return GPAlgorithm(space, seed=seed, num_initial=5, num_candidates=32)


class TestMultiKernelBO(AlgorithmContract):
    def make_space(self):
        return make_chain_space((8, 8, 8, 8), budget={"params": 0.3})

    def make_algorithm(self, space, seed):
        return MultiKernelBOAlgorithm(
            space,
            seed=seed,
            num_initial=6,
            num_candidates=32,
            num_kernels=2,
            batch_size=2,
            refit_every=4,
        )


class TestFaithfulMultiKernelBO(AlgorithmContract):
    unique = False
    covers_space = False

    def make_algorithm(self, space, seed):
        return MultiKernelBOAlgorithm(
            space, seed=seed, faithful=True, num_candidates=32, num_kernels=2, encoder="mlp"
        )


TINY = {"channels": 4, "embedding": 4, "hidden": 16, "pretrain_steps": 5, "fit_steps": 5}


class TestEmbeddingGradient(AlgorithmContract):
    def make_space(self):
        return make_chain_space((8, 8, 8, 8), budget={"params": 0.3})

    def make_algorithm(self, space, seed):
        return EmbeddingGradientAlgorithm(
            space,
            seed=seed,
            num_initial=5,
            num_starts=3,
            num_local=3,
            descent_steps=5,
            batch_size=2,
            **TINY,
        )


class TestEmbeddingGradientOfFreeChains(AlgorithmContract):
    edits = False

    def make_space(self):
        return make_chain_space((8, 8, 8), budget={"params": 0.3})

    def make_algorithm(self, space, seed):
        few = {"num_starts": 3, "num_local": 2, "descent_steps": 5, "batch_size": 2}
        return EmbeddingGradientAlgorithm(
            space, seed=seed, chains=True, num_initial=5, **few, **TINY
        )


class TestFaithfulEmbeddingGradient(AlgorithmContract):
    covers_space = False

    def make_algorithm(self, space, seed):
        return EmbeddingGradientAlgorithm(
            space, seed=seed, faithful=True, chains=False, num_initial=5, **TINY
        )


class TestN2N(AlgorithmContract):
    covers_space = False  # stage two keeps what stage one removed, and a policy that repeats itself ends the search

    def make_space(self):
        return make_chain_space((8, 8, 12, 12), grouping="by_size")

    def make_algorithm(self, space, seed):
        return N2NAlgorithm(space, seed=seed, num_trials=NUM_STEPS, rollouts=2)


class TestN2NWithinABudget(TestN2N):
    def make_space(self):
        return make_chain_space((8, 8, 8, 8), budget={"params": 0.3})


class TestTPE(AlgorithmContract):
    def make_algorithm(self, space, seed):
        return TPEAlgorithm(space, seed=seed, num_initial=4)


class TestUniform(AlgorithmContract):
    covers_space = False

    def make_algorithm(self, space, seed):
        return UniformAlgorithm(space, seed=seed)


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
