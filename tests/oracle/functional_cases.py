"""Calls of torch.nn.functional by name: arguments as NumPy arrays, options by torch's names."""

from __future__ import annotations

from typing import Any

import numpy as np

RNG = np.random.default_rng(5)
Case = tuple[str, tuple[Any, ...], dict[str, Any]]


def _x(*shape: int) -> Any:
    return RNG.standard_normal(shape)


A = _x(5, 4)
SIGNALS, IMAGES, VOLUMES = _x(2, 4, 7), _x(2, 4, 6, 7), _x(2, 4, 4, 5, 6)
BY_AXES = {1: SIGNALS, 2: IMAGES, 3: VOLUMES}
P = RNG.uniform(0.1, 0.9, (5, 4))
Q = RNG.uniform(0.1, 0.9, (5, 4))
LABELS = np.array([0, 3, 1, 2, 2])
SIGNS = np.where(_x(5, 4) > 0, 1.0, -1.0)
W = np.array([0.5, 1.0, 2.0, 3.0])
C = np.abs(_x(4)) + 0.5


def activations() -> list[Case]:
    """Functions of each element, and softmax."""
    inplace = ["celu", "elu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "mish"]
    inplace += ["relu", "relu6", "selu", "silu"]
    plain = [*inplace, "gelu", "glu", "hardshrink", "logsigmoid", "sigmoid", "softplus"]
    plain += ["softshrink", "softsign", "tanh", "tanhshrink"]
    options: list[tuple[str, dict[str, Any]]] = [
        ("celu", {"alpha": 0.5}),
        ("elu", {"alpha": 0.5}),
        ("gelu", {"approximate": "tanh"}),
        ("glu", {"dim": 0}),
        ("hardshrink", {"lambd": 0.3}),
        ("hardtanh", {"min_val": -0.5, "max_val": 0.25}),
        ("leaky_relu", {"negative_slope": 0.3}),
        ("softplus", {"beta": 2.0, "threshold": 1.0}),
        ("softshrink", {"lambd": 0.3}),
        ("threshold", {"threshold": 0.1, "value": 2.0, "inplace": False}),
        *[(name, {"dim": d}) for name in ("softmax", "log_softmax", "softmin") for d in (0, -1)],
    ]
    return [
        *[(name, (2 * _x(4, 6),), {}) for name in plain],
        *[(name, (_x(4, 6),), {"inplace": False}) for name in inplace],
        *[(name, (_x(4, 6),), o) for name, o in options],
        ("prelu", (SIGNALS, W), {}),
        ("prelu", (SIGNALS, W[:1]), {}),
    ]


def losses() -> list[Case]:
    """Losses by their reductions and weights."""
    reductions = ("mean", "sum", "none")
    valued = ("mse_loss", "l1_loss", "huber_loss")
    found: list[Case] = [
        *[(name, (A, P), {"reduction": r}) for name in valued for r in reductions],
        *[(name, (A, P), {"weight": Q, "reduction": r}) for name in valued for r in reductions],
        ("huber_loss", (A, P), {"delta": 0.3}),
        ("smooth_l1_loss", (A, P), {"beta": 0.3}),
        ("smooth_l1_loss", (A, P), {"reduction": "sum"}),
        ("kl_div", (np.log(P), Q), {"reduction": "batchmean"}),
        ("kl_div", (np.log(P), np.log(Q)), {"log_target": True}),
        ("poisson_nll_loss", (A, 3 * P), {"full": True}),
        ("poisson_nll_loss", (P, Q), {"log_input": False, "eps": 1e-3}),
        ("gaussian_nll_loss", (A, P, Q), {"full": True, "eps": 0.2}),
        ("gaussian_nll_loss", (A, P, 0.5), {}),
        ("cross_entropy", (A, LABELS), {"weight": W, "label_smoothing": 0.2}),
        ("cross_entropy", (A, LABELS), {"ignore_index": 2, "reduction": "sum"}),
        ("cross_entropy", (A, P), {"weight": W}),
        ("cross_entropy", (IMAGES, RNG.integers(0, 4, (2, 6, 7))), {}),
        ("nll_loss", (np.log(P), LABELS), {"weight": W, "ignore_index": 1}),
        ("multi_margin_loss", (A, LABELS), {"p": 2, "margin": 0.3, "weight": W}),
        ("multilabel_soft_margin_loss", (A, Q), {"weight": W}),
        ("binary_cross_entropy", (P, Q), {"weight": W}),
        ("binary_cross_entropy_with_logits", (A, Q), {"weight": W, "pos_weight": C}),
        ("soft_margin_loss", (A, SIGNS), {"reduction": "none"}),
        ("hinge_embedding_loss", (A, SIGNS), {"margin": 0.5}),
        ("margin_ranking_loss", (A, P, SIGNS), {"margin": 0.4}),
        ("cosine_similarity", (A, P), {"dim": -1}),
        ("pairwise_distance", (A, P), {"p": 3.0, "keepdim": True}),
        ("normalize", (A,), {"dim": 0}),
        ("pdist", (A,), {"p": 3.0}),
        ("rrelu", (A,), {"lower": 0.25}),
        ("triplet_margin_loss", (A, P, Q), {"margin": 2.0, "swap": True}),
        ("triplet_margin_with_distance_loss", (A, P, Q), {"reduction": "none"}),
        ("multilabel_margin_loss", (A, np.array([[1, 3, -1, 0]] * 5)), {"reduction": "sum"}),
        ("linear_cross_entropy", (A, _x(4, 4), LABELS), {"linear_bias": _x(4), "weight": W}),
        ("embedding_bag", (LABELS, _x(4, 3), np.array([0, 2])), {"mode": "mean"}),
        ("cosine_embedding_loss", (A, P, SIGNS[:, 0]), {"margin": 0.2, "reduction": "sum"}),
    ]
    return found


def layers() -> list[Case]:
    """Products, convolutions, normalisation, and dropout that changes nothing."""
    found: list[Case] = [
        ("linear", (A, _x(3, 4)), {}),
        ("linear", (A, _x(3, 4)), {"bias": _x(3)}),
        ("bilinear", (A, _x(5, 3), _x(2, 4, 3)), {"bias": _x(2)}),
        ("embedding", (LABELS, _x(4, 3)), {"padding_idx": -1}),
        ("one_hot", (LABELS,), {}),
        ("one_hot", (LABELS,), {"num_classes": 6}),
        ("layer_norm", (IMAGES,), {"normalized_shape": [6, 7], "weight": _x(6, 7)}),
        ("rms_norm", (IMAGES, [7]), {"weight": _x(7), "eps": 0.1}),
        ("local_response_norm", (IMAGES, 3), {"alpha": 0.5}),
    ]
    for n, x in BY_AXES.items():
        k = (3, 2, 2)[:n]
        found += [
            (f"conv{n}d", (x, _x(6, 2, *k), _x(6)), {"groups": 2, "padding": 1, "stride": 2}),
            (f"conv{n}d", (x, _x(6, 4, *k)), {"padding": "same", "dilation": 2}),
            (f"conv_transpose{n}d", (x, _x(4, 3, *k)), {"stride": 2, "output_padding": 1}),
            ("batch_norm", (x, _x(4), C), {"weight": W, "bias": _x(4), "eps": 0.1}),
            ("batch_norm", (x, None, None), {"training": True, "weight": W}),
            ("instance_norm", (x,), {"weight": W, "bias": _x(4)}),
            ("instance_norm", (x, _x(4), C), {"use_input_stats": False}),
            ("group_norm", (x, 2), {"weight": W, "bias": _x(4), "eps": 0.1}),
            (f"dropout{n}d", (x,), {"training": False, "inplace": False}),
        ]
    for name in ("dropout", "alpha_dropout", "feature_alpha_dropout"):
        found += [(name, (IMAGES, 0.3), {"training": False}), (name, (IMAGES, 1.0, True), {})]
    return found


def images() -> list[Case]:
    """Pools, pads, sizes, and what else moves pixels."""
    found: list[Case] = []
    for n, x in BY_AXES.items():
        pad = [1, 2, 0, 1, 1, 0][: 2 * n]
        linear = ("linear", "bilinear", "trilinear")[n - 1]
        found += [
            (f"max_pool{n}d", (x, 2), {"stride": 1, "padding": 1, "ceil_mode": True}),
            (f"avg_pool{n}d", (x, 3), {"padding": 1, "count_include_pad": False}),
            (f"adaptive_avg_pool{n}d", (x, 3), {}),
            (f"adaptive_max_pool{n}d", (x, 2), {}),
            (f"lp_pool{n}d", (np.abs(x), 3.0, 2), {"stride": 1}),
            *[("pad", (x, pad), {"mode": m}) for m in ("reflect", "replicate", "circular")],
            ("pad", (x, pad), {"value": 0.5}),
            ("interpolate", (x,), {"scale_factor": 2.0, "mode": linear, "align_corners": True}),
            ("interpolate", (x,), {"size": [5] * n}),
        ]
    grid = RNG.uniform(-1.2, 1.2, (2, 3, 5, 2))
    return [
        *found,
        ("upsample", (IMAGES,), {"scale_factor": 2}),
        ("upsample_nearest", (IMAGES, 9), {}),
        ("upsample_bilinear", (IMAGES,), {"size": 9}),
        ("pixel_shuffle", (IMAGES, 2), {}),
        ("pixel_unshuffle", (IMAGES[:, :, :, :6], 2), {}),
        ("channel_shuffle", (IMAGES, 2), {}),
        ("unfold", (IMAGES, 2), {"padding": 1, "stride": 2}),
        ("fold", (_x(2, 8, 12), (4, 5), 2), {}),
        ("grid_sample", (IMAGES, grid), {"mode": "bilinear", "align_corners": False}),
        ("affine_grid", (_x(2, 2, 3), [2, 1, 3, 4]), {"align_corners": False}),
    ]


def _mask(*shape: int) -> Any:
    """Floats with -inf here and there, and one row of nothing else."""
    mask = np.where(RNG.uniform(size=shape) < 0.3, -np.inf, RNG.normal(size=shape))
    mask[..., -1, :] = -np.inf
    return mask


def attention() -> list[Case]:
    """Masks, heads in groups, sizes that differ, leading axes that broadcast, no keys."""
    name = "scaled_dot_product_attention"
    q, k, v = _x(2, 4, 5, 3), _x(2, 4, 7, 3), _x(2, 4, 7, 6)
    seen = RNG.uniform(size=(2, 1, 5, 7)) < 0.7
    seen[0, 0, 2] = False
    few = (q, _x(2, 2, 7, 3), _x(2, 2, 7, 6))
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((q, k, v), {}),
        ((q, k, v), {"is_causal": True}),
        ((k, q, v[:, :, :5]), {"is_causal": True}),
        ((q, k, v), {"scale": 0.25}),
        ((q, k, v), {"scale": -0.25}),
        ((q, k, v, seen), {}),
        ((q, k, v, seen[0, 0]), {}),
        ((q, k, v, RNG.uniform(size=(2, 4, 1, 7)) < 0.5), {}),
        ((q, k, v, RNG.uniform(size=(4, 5, 1)) < 0.5), {}),
        ((q, k, v, _mask(5, 7)), {}),
        ((q, k, v, _mask(1, 4, 5, 7), 0.0, False), {"scale": 1.0}),
        ((q, k, v, _mask(2, 1, 5, 1)), {}),
        ((*few,), {"enable_gqa": True}),
        ((*few, seen), {"enable_gqa": True}),
        ((*few,), {"enable_gqa": True, "is_causal": True}),
        ((q, _x(2, 2, 7, 3), v), {"enable_gqa": True}),
        ((q[0, 0], k[0, 0], v[0, 0]), {}),
        ((q[0], k[0], v[0]), {"is_causal": True}),
        ((q[0, :1], k[0, 0], v[0]), {}),
        ((_x(3, 2, 1, 5, 3), _x(3, 2, 2, 7, 3), _x(3, 2, 2, 7, 6)), {}),
        ((_x(1, 3, 33, 17), _x(1, 3, 70, 17), _x(1, 3, 70, 9)), {}),
        ((_x(2, 1, 70, 16), _x(2, 1, 70, 16), _x(2, 1, 70, 16)), {"is_causal": True}),
        ((q, k[:, :, :0], v[:, :, :0]), {}),
        ((q, k, v), {"dropout_p": 1.0}),
    ]
    return [(name, args, options) for args, options in calls]


CASES = [*activations(), *losses(), *layers(), *images(), *attention()]
