"""The paper's Bayesian optimisation baselines (Appendix E.1): a Gaussian process over configurations.

BO-MF describes a configuration by its embedding, BO-FULL by its column of the error matrix. The kernel is RBF
with length scale 20 plus white noise of variance 1, which the paper chose on a logarithmic scale. Both are
fixed, so the posterior has a closed form. The next configuration to measure maximises the expected
improvement with xi = 0.01 (Jones et al., 1998).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.special import ndtr

LENGTH_SCALE, NOISE, XI = 20.0, 1.0, 0.01


@dataclass(frozen=True, slots=True)
class GaussianProcess:
    """A Gaussian process over d configurations: prior ``covariance`` [d, d], ``mean`` [d], and ``noise``."""

    covariance: NDArray[np.float64]
    mean: NDArray[np.float64]
    noise: float = NOISE

    @classmethod
    def rbf(cls, features: NDArray[np.float64], mean: NDArray[np.float64]) -> "GaussianProcess":
        """The process with the paper's kernel over ``features`` [d, f]."""
        squares = (features**2).sum(axis=1)
        distances = np.maximum(squares[:, None] + squares - 2 * features @ features.T, 0.0)
        return cls(np.exp(-0.5 * distances / LENGTH_SCALE**2), mean)

    def posterior(
        self, measured: Sequence[int], errors: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation [d] of the noise-free errors, given ``errors`` [l] of ``measured`` [l].

        >>> process = GaussianProcess(np.array([[1.0, 0.5], [0.5, 1.0]]), np.array([0.4, 0.6]))
        >>> mean, deviation = process.posterior([0], np.array([0.2]))
        >>> mean, deviation.round(3)
        (array([0.3 , 0.55]), array([0.707, 0.935]))
        """
        S = list(measured)
        K = self.covariance[:, S]  # [d, l]
        factor = scipy.linalg.cholesky(K[S] + self.noise * np.eye(len(S)), lower=True, check_finite=False)
        root = scipy.linalg.solve_triangular(factor, K.T, lower=True, check_finite=False)  # [l, d]
        residual = scipy.linalg.solve_triangular(
            factor, errors - self.mean[S], lower=True, check_finite=False
        )
        variance = np.diag(self.covariance) - (root**2).sum(axis=0)
        return self.mean + residual @ root, np.sqrt(np.maximum(variance, 0.0))


def expected_improvement(
    mean: NDArray[np.float64], deviation: NDArray[np.float64], best: float, *, xi: float = XI
) -> NDArray[np.float64]:
    """The expected improvement of each configuration's error on ``best`` - xi: [d].

    >>> expected_improvement(np.array([0.3, 0.5]), np.array([0.1, 0.1]), best=0.31).round(4)
    array([0.0399, 0.0008])
    """
    gain = best - xi - mean
    z = gain / np.maximum(deviation, 1e-12)
    return np.asarray(gain * ndtr(z) + deviation * np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi))
