"""Distribution functions and quantiles of Student's t and the normal distribution, from scipy.

scipy is imported at the first call: most commands make none, and its import takes longer than they need to begin.
"""

from __future__ import annotations

from typing import Any


def student_quantile(freedom: float, level: float) -> float:
    """The value below which Student's t with so many degrees of freedom lies with probability `level`."""
    from scipy.special import stdtrit  # importing scipy.stats would take seconds

    return float(stdtrit(freedom, level))


def normal_cdf(values: Any) -> Any:
    """The share of the standard normal distribution below each of `values`, a number or an array."""
    from scipy.special import ndtr

    return ndtr(values)


def normal_quantile(level: float) -> float:
    """The value below which the standard normal distribution lies with probability `level`."""
    from scipy.special import ndtri

    return float(ndtri(level))
