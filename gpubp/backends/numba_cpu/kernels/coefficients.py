"""Coefficients of the approximations in `fastmath` and `vectormath`, and where they end."""

from __future__ import annotations

import math

import numpy as np

F = np.float32
# 1.5 * 2^23 + 254: adding it leaves n + 254 in the low bits, n the nearest integer. See `scaled`.
ROUND = F(12583166.0)
LOG2E = F(1.44269504088896341)
LN2_HIGH, LN2_LOW = F(0.693359375), F(-2.12194440e-4)
ROOT_HALF, DENSITY = math.sqrt(0.5), 1.0 / math.sqrt(2.0 * math.pi)
# Here n is -254, and so e^x exactly 0; here it is beyond the largest number.
LOWEST, HIGHEST = F(-254 * math.log(2.0)), F(89.0)
EXP = (
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
)
TANH_LIMIT, ERF_LIMIT, SLOPE_LIMIT = 9.02, 3.92, 6.0
NORMAL_LIMIT = ERF_LIMIT * math.sqrt(2.0)
TANH = (
    (1.0, 0.136798903, 0.00386829558, 2.80068034e-05, 3.05834327e-08, -1.22022878e-11),
    (1.0, 0.470132232, 0.0272457227, 0.000393857423, 1.28732052e-06),
)
ERF = (
    (1.12837911, 0.190396875, 0.0527472757, 0.00376515882, 0.000284864858, 2.05006177e-06),
    (1.0, 0.502067566, 0.114104986, 0.0149683021, 0.00116241048, 3.80905149e-05),
)
# erf(x / sqrt(2)).
NORMAL = (
    (0.797884524, 0.0673154593, 0.00932448916, 0.00033279616, 1.25893675e-05, 4.53003963e-08),
    (1.0, 0.251033783, 0.0285262465, 0.00187103776, 7.26506551e-05, 1.19032859e-06),
)
# Beyond this GELU and its slope are made of e^(-x^2 / 2): 1 + erf would lose their digits.
TAIL, TAIL_END = -2.5, -20.0
# -GELU / density = S(1 / x^2), from -14.8 to -2.4.
RATIO = (0.9999991, -0.99973303, 2.9733322, -13.7300825, 69.928345, -292.3234, 780.9241, -944.57043)
# The derivative of GELU less 1/2.
SLOPE = (
    (
        0.797884524,
        -0.0223738626,
        0.0138574354,
        0.000202684096,
        3.40917832e-05,
        9.22398272e-07,
        1.70451493e-08,
    ),
    (
        1.0,
        0.305291474,
        0.0441326201,
        0.00397137087,
        0.00024531188,
        1.0307077e-05,
        3.38940367e-07,
        1.31471578e-09,
    ),
)

ROUND64 = 6755399441057790.0  # 1.5 * 2^52 + 2046
LN2_HIGH64, LN2_LOW64 = 6.93147180369123816490e-01, 1.90821492927058770002e-10
LOWEST64, HIGHEST64 = -2046 * math.log(2.0), 710.0
TAYLOR = tuple(1.0 / math.factorial(k) for k in range(14))
