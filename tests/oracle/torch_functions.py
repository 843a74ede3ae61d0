"""Functions of torch's operations, one line each: what gpubp.torch's rules are held to.

x, y: (3, 4) in float64, both differentiated; i: integers (3, 4) from 0 to 3; m: a mask (3, 4).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - as everybody writes it


def _inplace(x: Any) -> Any:
    z = x * 1
    z[:, 1:3] += 1
    z[0] = 7
    z.view(-1)[2] = 5
    z.t()[1].mul_(2)
    return z


def _inplace_view_first(x: Any) -> Any:
    z = x * 1
    row = z[1]
    z.mul_(3)
    return row * z[0]


def _inplace_of_mask(x: Any) -> Any:
    z = x * 1
    z[z > 0] = 0.5
    return z.clamp_(-1, 1).relu_()


def _no_grad(x: Any) -> Any:
    with torch.no_grad():
        scale = x.abs().max()
    return x / scale


def _no_grad_views(x: Any) -> Any:
    with torch.no_grad():
        rows = x.view(-1)[:4]
        with torch.enable_grad():
            again = x * 2
    return x * rows + again


def _detached(x: Any) -> Any:
    return x.detach() * x


def _buffers_made(x: Any) -> Any:
    out = torch.zeros(3, 4, dtype=x.dtype)
    for k in range(3):
        out[k] = x[k] * k
    return out + torch.eye(3, 4) + torch.full((4,), 2.0) + torch.arange(4) + x.new_ones(4)


def _loop(x: Any) -> Any:
    h = torch.zeros_like(x[0])
    for row in x:
        h = torch.tanh(h + row)
    return h


def _attention(x: Any, y: Any) -> Any:
    q, k = x[None, None], y[None, None]
    return F.scaled_dot_product_attention(q, k, k, is_causal=False)


ARITHMETIC = {
    "add": lambda x, y, i, m: torch.add(x, y, alpha=2) + 3 - i,
    "rsub": lambda x, y, i, m: 1 - x - torch.rsub(x, y),
    "division": lambda x, y, i, m: x / (y.abs() + 1) + 2 / (x.abs() + 1) + i / 2,
    "rounded division": lambda x, y, i, m: torch.div(x, 0.3, rounding_mode="floor") + x * (i // 2),
    "powers": lambda x, y, i, m: x**2 + x**3 + y.abs() ** 0.5 + 2.0**x + x.abs() ** y,
    "exponentials": lambda x, y, i, m: x.exp() + torch.log1p(x.abs()) + x.expm1() + x.exp2(),
    "logarithms": lambda x, y, i, m: (x.abs() + 1).log() + (x.abs() + 1).log2(),
    "trigonometry": lambda x, y, i, m: x.sin() + x.cos() + x.tan() + x.atan() + x.sinh() + x.cosh(),
    "arcs": lambda x, y, i, m: torch.atan2(x, y) + (x / 9).asin() + (x / 9).acos() + x.asinh(),
    "roots": lambda x, y, i, m: x.abs().add(1).sqrt() + x.abs().add(1).rsqrt() + torch.hypot(x, y),
    "signs": lambda x, y, i, m: x.abs() + x.sign() * y + x.neg() + torch.copysign(x, y),
    "rounding": lambda x, y, i, m: x.floor() + x.ceil() * y + x.round() + x.trunc() + x.frac(),
    "remainders": lambda x, y, i, m: torch.remainder(x, 0.7) + torch.fmod(x, 0.7) + x * (i % 2),
    "error functions": lambda x, y, i, m: x.erf() + x.erfc() + (x / 9).erfinv(),
    "extremes": lambda x, y, i, m: torch.maximum(x, y) - torch.minimum(x, y) + torch.max(x, y),
    "clamp": lambda x, y, i, m: x.clamp(-0.5, 0.5) + y.clamp(min=0) + x.clamp(max=y.detach()),
    "comparisons": lambda x, y, i, m: x * (x > y) + y * (x <= 0.5) + x * (i == 2) + x * (i != 1),
    "logic": lambda x, y, i, m: (
        x * (m & (y > 0)) + y * (m | (x > 0)) + x * (~m) + y * (m ^ (x > 0))
    ),
    "where": lambda x, y, i, m: (
        torch.where(m, x, y) + torch.where(m, 1.0, x) + x.masked_fill(m, 2.0)
    ),
    "lerp": lambda x, y, i, m: torch.lerp(x, y, 0.3) + torch.addcmul(x, x, y, value=2),
    "addcdiv": lambda x, y, i, m: torch.addcdiv(x, x, y.abs() + 1) + torch.xlogy(x, y.abs() + 1),
    "logaddexp": lambda x, y, i, m: torch.logaddexp(x, y) + x.reciprocal().clamp(-3, 3),
    "activations": lambda x, y, i, m: (
        F.relu(x)
        + F.gelu(y)
        + F.gelu(x, approximate="tanh")
        + F.silu(x)
        + F.elu(y, 0.5)
        + F.mish(x)
    ),
    "more activations": lambda x, y, i, m: (
        F.softplus(x) + F.leaky_relu(y, 0.2) + F.hardtanh(x) + F.relu6(y) + F.selu(x) + F.celu(y)
    ),
    "other activations": lambda x, y, i, m: (
        F.logsigmoid(x) + F.hardswish(y) + F.softsign(x) + F.tanhshrink(y) + F.softshrink(x)
    ),
    "softmax": lambda x, y, i, m: F.softmax(x, 1) + F.log_softmax(y, 0) + F.softmin(x, -1),
    "glu": lambda x, y, i, m: F.glu(x, 1),
}

SHAPES = {
    "views": lambda x, y, i, m: x.view(4, 3).reshape(-1).unflatten(0, (2, 6)).flatten() * y.ravel(),
    "transposes": lambda x, y, i, m: (
        x.t() @ y + x.transpose(0, 1) @ y + x.permute(1, 0) @ y + x.mT @ y
    ),
    "axes": lambda x, y, i, m: (
        x.unsqueeze(0).unsqueeze(-1).squeeze(0).squeeze(-1).movedim(0, 1) * 2
    ),
    "expand": lambda x, y, i, m: x[:1].expand(3, -1) * y + x[0].expand_as(y),
    "slices": lambda x, y, i, m: x[1:, ::2] * y[:2, 1::2] + x[..., -1:][:2] + x[-1, None, :2],
    "narrow": lambda x, y, i, m: x.narrow(1, 1, 2) * y.select(1, 0)[:, None],
    "pieces": lambda x, y, i, m: (
        x.split(2, 1)[0] * x.chunk(2, 1)[1] + torch.stack(y.unbind(1)[:2], 1)
    ),
    "joined": lambda x, y, i, m: torch.cat([x, y], 1) * torch.hstack([y, x]),
    "stacked": lambda x, y, i, m: torch.stack([x, y], 1).sum(1) * torch.vstack([x, y])[:3],
    "repeated": lambda x, y, i, m: x.repeat(2, 1) * torch.repeat_interleave(y, 2, 0) + x.tile(2, 1),
    "turned": lambda x, y, i, m: x.flip(0) * y.roll(1, 1) + torch.rot90(x, 2),
    "windows": lambda x, y, i, m: x.unfold(1, 2, 1).sum(-1) * 2,
    "diagonals": lambda x, y, i, m: (
        x.diagonal() * y.tril().diagonal(1) + x.triu(1).sum() + x.diag()
    ),
    "dtypes": lambda x, y, i, m: x * i.double() + y * m.to(x.dtype) + x * i.float().double(),
    "contiguous": lambda x, y, i, m: x.t().contiguous().view(-1) * y.t().reshape(-1),
    "in place": lambda x, y, i, m: _inplace(x) * y,
    "a view, then in place": lambda x, y, i, m: _inplace_view_first(x) + y[0],
    "in place by a mask": lambda x, y, i, m: _inplace_of_mask(x) * y,
    "no gradient": lambda x, y, i, m: _no_grad(x) * y,
    "views without gradient": lambda x, y, i, m: _no_grad_views(x) * y,
    "detached": lambda x, y, i, m: _detached(x) + y,
    "made": lambda x, y, i, m: _buffers_made(x) * y,
    "a loop": lambda x, y, i, m: _loop(x) * y,
}

REDUCTIONS = {
    "sums": lambda x, y, i, m: (
        x.sum() + x.sum(1) * y.sum(0)[:3] + x.sum((0, 1)) + m.sum() + i.sum(0)[:3]
    ),
    "means": lambda x, y, i, m: x.mean() + x.mean(0, keepdim=True) * y + y.mean((0, 1)),
    "spread": lambda x, y, i, m: (
        x.std() + x.var(0) * y.std(0, unbiased=False) + y.var(1, correction=0).sum()
    ),
    "both": lambda x, y, i, m: torch.var_mean(x, 1)[0] * torch.std_mean(y, 1)[1],
    "extremes": lambda x, y, i, m: (
        x.max() + x.max(1).values * y.min(1).values + x.amax(0).sum() + y.amin()
    ),
    "places": lambda x, y, i, m: x * (x.argmax(1, keepdim=True) == i) + y * y.argmin(),
    "products": lambda x, y, i, m: x.prod() + x.prod(1) * y.prod(1),
    "norms": lambda x, y, i, m: x.norm() + x.norm(dim=1) * torch.linalg.vector_norm(y, 1, dim=1),
    "logsumexp": lambda x, y, i, m: x.logsumexp(1) * y.logsumexp((0, 1)),
    "running sums": lambda x, y, i, m: x.cumsum(1) * y.cumprod(0),
    "sorted": lambda x, y, i, m: (
        x.sort(1).values * y.topk(4, 1).values + x.median(1).values[:, None]
    ),
    "any": lambda x, y, i, m: x * (y > 0).any(1, keepdim=True) + y * m.all() + x * (i > 1).any(),
    "counts": lambda x, y, i, m: x * torch.count_nonzero(i) + y,
    "einsum": lambda x, y, i, m: torch.einsum("ij,kj->ik", x, y) + torch.einsum("ij,ij->", x, y),
    "products of matrices": lambda x, y, i, m: (
        x @ y.t() + torch.mm(x, y.t()) + torch.addmm(x[:, :3], x, y.t(), beta=2, alpha=0.5)
    ),
    "batches": lambda x, y, i, m: (
        torch.bmm(x[None], y.t()[None])[0] + torch.baddbmm(x[None, :, :3], x[None], y.t()[None])[0]
    ),
    "vectors": lambda x, y, i, m: (
        torch.outer(x[0], y[0]) * torch.dot(x[1], y[1]) + torch.mv(x, y[0]).sum()
    ),
    "distances": lambda x, y, i, m: (
        torch.cdist(x, y) + F.cosine_similarity(x, y)[:, None] + F.pairwise_distance(x, y)
    ),
    "normalized": lambda x, y, i, m: F.normalize(x) * F.normalize(y, p=1.0, dim=0),
}

PLACES = {
    "look-ups": lambda x, y, i, m: x[:, i[0]] * y[i[:, 0] % 3] + x[i[0, :3] % 3, i[1, :3]][:, None],
    "gather": lambda x, y, i, m: x.gather(1, i) * torch.take_along_dim(y, i, 1),
    "select": lambda x, y, i, m: x.index_select(1, i[0]) * y,
    "scatter": lambda x, y, i, m: x.scatter(1, i[:, :1], y[:, :1]) + y.scatter_add(1, i, x),
    "scatter a number": lambda x, y, i, m: x.scatter(1, i[:, :1], 2.0) * y,
    "added": lambda x, y, i, m: x.index_add(1, i[0], y) * 2,
    "one hot": lambda x, y, i, m: x * F.one_hot(i[:, 0], 4) + F.embedding(i[:, 0], y.t()).sum(),
    "put": lambda x, y, i, m: (
        torch.index_put(x, (i[:, 0] % 3, i[:, 1]), y[:, 0], accumulate=True) * 2
    ),
}

LAYERS = {
    "convolution": lambda x, y, i, m: F.conv1d(x[None], y[:2, None, :3].expand(2, 3, 3), padding=1),
    "convolution without a batch": lambda x, y, i, m: F.conv1d(x, y[:2, None, :2].expand(2, 3, 2)),
    "transposed": lambda x, y, i, m: F.conv_transpose1d(x[None], y[:, None, :2], stride=2),
    "images": lambda x, y, i, m: F.conv2d(
        x[None, None], y[None, None, :2, :2], dilation=1, padding="same"
    ),
    "pools": lambda x, y, i, m: (
        F.max_pool2d(x[None, None], 2, 1) * F.avg_pool2d(y[None, None], 2, 1)
    ),
    "adaptive": lambda x, y, i, m: (
        F.adaptive_avg_pool2d(x[None, None], (1, 2))
        * F.adaptive_max_pool1d(y[None], 2)[None, :, :1]
    ),
    "padding": lambda x, y, i, m: F.pad(x, (1, 1)) * F.pad(y[None], (1, 1), mode="reflect")[0],
    "resized": lambda x, y, i, m: (
        F.interpolate(x[None, None], scale_factor=2)
        * F.interpolate(y[None, None], size=(6, 8), mode="bilinear", align_corners=False)
    ),
    "windows": lambda x, y, i, m: F.unfold(x[None, None], 2).sum() * y,
    "layer norm": lambda x, y, i, m: F.layer_norm(x, (4,), y[0], y[1]) + F.rms_norm(x, (4,)),
    "group norm": lambda x, y, i, m: F.group_norm(x[:, :, None], 2, y[0], y[1]).squeeze(-1) * y,
    "linear": lambda x, y, i, m: F.linear(x, y, y[:, 0]),
    "attention": lambda x, y, i, m: _attention(x, y),
}

LOSSES = {
    "cross entropy": lambda x, y, i, m: (
        F.cross_entropy(x, i[:, 0]) + F.cross_entropy(x, F.softmax(y, 1))
    ),
    "cross entropy, options": lambda x, y, i, m: F.cross_entropy(
        x, i[:, 0], weight=y[0].detach().abs(), label_smoothing=0.1, ignore_index=2, reduction="sum"
    ),
    "likelihood": lambda x, y, i, m: F.nll_loss(F.log_softmax(x, 1), i[:, 0]) * y,
    "logits": lambda x, y, i, m: F.binary_cross_entropy_with_logits(x, m.double()) * y,
    "probabilities": lambda x, y, i, m: (
        F.binary_cross_entropy(torch.sigmoid(x), m.double(), reduction="none") * y
    ),
    "squares": lambda x, y, i, m: F.mse_loss(x, y) + F.l1_loss(x, y, reduction="sum"),
    "bent": lambda x, y, i, m: F.smooth_l1_loss(x, y, beta=0.5) + F.huber_loss(x, y, delta=0.7),
    "divergence": lambda x, y, i, m: F.kl_div(
        F.log_softmax(x, 1), F.softmax(y, 1), reduction="batchmean"
    ),
    "counts": lambda x, y, i, m: F.poisson_nll_loss(x, i.double()) * y,
    "margins": lambda x, y, i, m: F.margin_ranking_loss(
        x[:, 0], y[:, 0], torch.ones(3).double(), 0.5
    ),
    "triples": lambda x, y, i, m: F.triplet_margin_loss(x, y, x.flip(1)),
    "normal": lambda x, y, i, m: F.gaussian_nll_loss(x, y, torch.ones_like(x)),
    "hinges": lambda x, y, i, m: (
        F.multi_margin_loss(x, i[:, 0]) * y + F.soft_margin_loss(x, m * 2.0 - 1.0)
    ),
}

FUNCTIONS = {
    f"{family}: {name}": fn
    for family, found in {
        "arithmetic": ARITHMETIC,
        "shapes": SHAPES,
        "reductions": REDUCTIONS,
        "places": PLACES,
        "layers": LAYERS,
        "losses": LOSSES,
    }.items()
    for name, fn in found.items()
}
