"""Slow readable twins, written from the paper's definitions, that the fast code is compared with."""

import math
from fractions import Fraction

import numpy as np


def nondominated(memory, error, feasible):
    """Section 2: c1 is Pareto optimal if for any other feasible c2, c2 <= c1 implies c2 = c1."""
    points = list(zip(memory, error, strict=True))

    def optimal(c1):
        others = [c2 for c2, allowed in zip(points, feasible, strict=True) if allowed]
        return all(c2 == c1 for c2 in others if c2[0] <= c1[0] and c2[1] <= c1[1])

    return [bool(allowed) and optimal(c1) for c1, allowed in zip(points, feasible, strict=True)]


def soft_impute(E, observed, shrinkage, iterations=20_000, tolerance=1e-12):
    """Algorithm 1 as printed, with one lambda throughout."""
    estimate = np.zeros(E.shape)
    for _ in range(iterations):
        filled = np.where(observed, E, estimate)
        U, S, Vt = np.linalg.svd(filled, full_matrices=False)
        last, estimate = estimate, U @ np.diag(np.maximum(S - shrinkage, 0)) @ Vt
        if np.abs(estimate - last).max() < tolerance:
            break
    return estimate


def accelerated_soft_impute(E, observed, weights, shrinkage, iterations):
    """Nesterov's method of 1983 with TFOCS's step sizes (Becker et al., 2011), written as two sequences.

    Restarts where the step points against the last move (O'Donoghue and Candes, 2015).
    """
    W = np.where(observed, weights, 0.0) / weights[observed].mean()
    x = z = np.zeros(E.shape)
    L, theta = W.max(), 1.0
    for _ in range(iterations):
        x_old, z_old, L_old, theta_old = x, z, L, theta
        L = 0.9 * L
        while True:
            theta = 2 / (1 + np.sqrt(1 + 4 * (L / L_old) / theta_old**2))
            y = (1 - theta) * x_old + theta * z_old
            gradient = W * np.where(observed, y - E, 0.0)
            U, S, Vt = np.linalg.svd(y - gradient / L, full_matrices=False)
            x = U @ np.diag(np.maximum(S - shrinkage / L, 0)) @ Vt
            local = (W * (x - y) ** 2).sum() / ((x - y) ** 2).sum()
            if local <= L or W.max() <= L:
                break
            L = min(W.max(), max(local, 2 * L))
        z = x_old + (x - x_old) / theta
        if ((y - x) * (x - x_old)).sum() > 0:
            theta, z = 1.0, x
    return x


def log_determinant(Y, S):
    """log det of the sum of y_j y_j^T over j in S, where row j of Y is y_j; -inf if it is singular."""
    sign, value = np.linalg.slogdet(sum(np.outer(Y[j], Y[j]) for j in S))
    return value if sign > 0 else -np.inf


def round_exactly(x, fmt, *, twice=False):
    """Nearest rounding of float32 ``x`` to ``fmt`` in float64, which holds every number here exactly.

    ``twice`` first rounds what lies below ``min_normal`` to 24 bits' worth of it, as QPyTorch's arithmetic
    does: only numbers within that error of a tie can come out otherwise.
    """
    x = x.astype(np.float64)
    finite = np.where(np.isfinite(x), np.abs(x), 0.0)
    exponent = np.frexp(finite)[1] - 1
    if fmt.subnormals:
        exponent = np.maximum(exponent, fmt.min_exponent)
    if twice:
        finest = 2.0 ** (fmt.min_exponent - 23)
        finite = np.where(finite < fmt.min_normal, np.rint(finite / finest) * finest, finite)
    step = np.ldexp(1.0, exponent - fmt.mantissa_bits)
    if fmt.ties == "even":  # of the codes: without mantissa bits they are the exponents
        before = np.where(finite > 0, exponent - fmt.min_exponent, 0) * 2.0**fmt.mantissa_bits
        steps = np.rint(before + finite / step) - before
    else:
        steps = np.floor(finite / step + 0.5)
    magnitude = np.where(np.isinf(x), np.inf, steps * step)
    if not fmt.subnormals:
        kept = np.where(magnitude > fmt.min_normal / 2, fmt.min_normal, 0.0)
        magnitude = np.where(magnitude < fmt.min_normal, kept, magnitude)
    beyond = {"saturate": fmt.max, "inf": np.inf, "nan": np.nan}[fmt.overflow]
    magnitude = np.where(magnitude > fmt.max, beyond, magnitude)
    return np.where(np.isnan(x), np.nan, np.copysign(magnitude, x))


def round_stochastically(x, fmt, random):
    """Stochastic rounding of one finite number to ``fmt``, in fractions; ``random`` is an integer of 32 bits.

    The number goes up if the lowest R random bits plus the cut-off fraction, in units of 2^-R, reach 2^R. R
    is the number of bits that float32 has below the step, so 23 - M for a normal number, and one more for
    each binade that a subnormal lies further down, up to 23. Below 5 mantissa bits R is 23 - M there, too.
    Finer fractions are rounded to R bits first.
    """
    magnitude, normal = abs(Fraction(x)), Fraction(fmt.min_normal)
    exponent = max(math.frexp(float(magnitude))[1] - 1, fmt.min_exponent)
    step = Fraction(2) ** (exponent - fmt.mantissa_bits)
    R = 23 - fmt.mantissa_bits
    if fmt.mantissa_bits >= 5 and fmt.exponent_bits < 8 and magnitude < normal:
        R = min(R + fmt.min_exponent - (math.frexp(float(magnitude))[1] - 1), 23) if magnitude else 23
    whole, fraction = divmod(round(magnitude / step * 2**R), 2**R)  # Python rounds ties to even
    whole += fraction + random % 2**R >= 2**R
    return math.copysign(float(min(whole * step, Fraction(fmt.max))), x)
