"""Functions with torch.nn.functional's names and arguments: `import gpubp.nn.functional as F`.

Everything that gpubp has of it. Most are ops of `gpubp.ops` under torch's names of arguments;
losses are those of `gpubp.nn`. Arguments `inplace` are taken where they are False. Gradients,
compiled functions and every backend are the ops' own.
"""

from __future__ import annotations

from gpubp import ops
from gpubp.nn.embedding_bag import embedding_bag
from gpubp.nn.functional.distances import (
    cosine_similarity,
    ctc_loss,
    linear_cross_entropy,
    multilabel_margin_loss,
    normalize,
    pairwise_distance,
    triplet_margin_loss,
    triplet_margin_with_distance_loss,
)
from gpubp.nn.functional.loss import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cosine_embedding_loss,
    cross_entropy,
    gaussian_nll_loss,
    hinge_embedding_loss,
    huber_loss,
    kl_div,
    l1_loss,
    margin_ranking_loss,
    mse_loss,
    multi_margin_loss,
    multilabel_soft_margin_loss,
    nll_loss,
    poisson_nll_loss,
    smooth_l1_loss,
    soft_margin_loss,
)
from gpubp.nn.functional.renamed import as_torch
from gpubp.nn.functional.softmax import gumbel_softmax, log_softmax, softmax, softmin
from gpubp.nn.layer_functions import bilinear, embedding, one_hot

# Products and convolutions.
conv1d = as_torch(ops.conv1d)
conv2d = as_torch(ops.conv2d)
conv3d = as_torch(ops.conv3d)
conv_transpose1d = as_torch(ops.conv_transpose1d)
conv_transpose2d = as_torch(ops.conv_transpose2d)
conv_transpose3d = as_torch(ops.conv_transpose3d)
linear = as_torch(ops.linear)
scaled_dot_product_attention = as_torch(ops.scaled_dot_product_attention)

# Pools.
avg_pool1d = as_torch(ops.avg_pool1d)
avg_pool2d = as_torch(ops.avg_pool2d)
avg_pool3d = as_torch(ops.avg_pool3d)
max_pool1d = as_torch(ops.max_pool1d)
max_pool2d = as_torch(ops.max_pool2d)
max_pool3d = as_torch(ops.max_pool3d)
lp_pool1d = as_torch(ops.lp_pool1d)
lp_pool2d = as_torch(ops.lp_pool2d)
lp_pool3d = as_torch(ops.lp_pool3d)
adaptive_avg_pool1d = as_torch(ops.adaptive_avg_pool1d)
adaptive_avg_pool2d = as_torch(ops.adaptive_avg_pool2d)
adaptive_avg_pool3d = as_torch(ops.adaptive_avg_pool3d)
adaptive_max_pool1d = as_torch(ops.adaptive_max_pool1d)
adaptive_max_pool2d = as_torch(ops.adaptive_max_pool2d)
adaptive_max_pool3d = as_torch(ops.adaptive_max_pool3d)
fractional_max_pool2d = as_torch(ops.fractional_max_pool2d)
fractional_max_pool3d = as_torch(ops.fractional_max_pool3d)
max_unpool1d = as_torch(ops.max_unpool1d)
max_unpool2d = as_torch(ops.max_unpool2d)
max_unpool3d = as_torch(ops.max_unpool3d)

# Normalisation.
batch_norm = as_torch(ops.batch_norm)
group_norm = as_torch(ops.group_norm)
instance_norm = as_torch(ops.instance_norm)
layer_norm = as_torch(ops.layer_norm)
local_response_norm = as_torch(ops.local_response_norm)
rms_norm = as_torch(ops.rms_norm)

# Images.
affine_grid = as_torch(ops.affine_grid)
grid_sample = as_torch(ops.grid_sample)
interpolate = as_torch(ops.interpolate)
upsample = as_torch(ops.upsample)
upsample_bilinear = as_torch(ops.upsample_bilinear)
upsample_nearest = as_torch(ops.upsample_nearest)
pad = as_torch(ops.pad)
pixel_shuffle = as_torch(ops.pixel_shuffle)
pixel_unshuffle = as_torch(ops.pixel_unshuffle)
channel_shuffle = as_torch(ops.channel_shuffle)
fold = as_torch(ops.fold)
unfold = as_torch(ops.unfold)

# Distances.
pdist = as_torch(ops.pdist)

# Activations and dropout.
alpha_dropout = as_torch(ops.alpha_dropout, inplace=True)
celu = as_torch(ops.celu, inplace=True)
dropout = as_torch(ops.dropout, inplace=True)
dropout1d = as_torch(ops.dropout1d, inplace=True)
dropout2d = as_torch(ops.dropout2d, inplace=True)
dropout3d = as_torch(ops.dropout3d, inplace=True)
elu = as_torch(ops.elu, inplace=True)
feature_alpha_dropout = as_torch(ops.feature_alpha_dropout, inplace=True)
gelu = as_torch(ops.gelu)
glu = as_torch(ops.glu, axis="dim")
hardshrink = as_torch(ops.hardshrink)
hardsigmoid = as_torch(ops.hardsigmoid, inplace=True)
hardswish = as_torch(ops.hardswish, inplace=True)
hardtanh = as_torch(ops.hardtanh, inplace=True, low="min_val", high="max_val")
leaky_relu = as_torch(ops.leaky_relu, inplace=True, slope="negative_slope")
logsigmoid = as_torch(ops.logsigmoid)
mish = as_torch(ops.mish, inplace=True)
prelu = as_torch(ops.prelu)
relu = as_torch(ops.relu, inplace=True)
relu6 = as_torch(ops.relu6, inplace=True)
rrelu = as_torch(ops.rrelu, inplace=True)
selu = as_torch(ops.selu, inplace=True)
sigmoid = as_torch(ops.sigmoid)
silu = as_torch(ops.silu, inplace=True)
softplus = as_torch(ops.softplus)
softshrink = as_torch(ops.softshrink)
softsign = as_torch(ops.softsign)
tanh = as_torch(ops.tanh)
tanhshrink = as_torch(ops.tanhshrink)
threshold = as_torch(ops.threshold, inplace=True)

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "affine_grid",
    "alpha_dropout",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "batch_norm",
    "bilinear",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "celu",
    "channel_shuffle",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "cosine_embedding_loss",
    "cosine_similarity",
    "cross_entropy",
    "ctc_loss",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "elu",
    "embedding",
    "embedding_bag",
    "feature_alpha_dropout",
    "fold",
    "fractional_max_pool2d",
    "fractional_max_pool3d",
    "gaussian_nll_loss",
    "gelu",
    "glu",
    "grid_sample",
    "group_norm",
    "gumbel_softmax",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "hinge_embedding_loss",
    "huber_loss",
    "instance_norm",
    "interpolate",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "linear_cross_entropy",
    "local_response_norm",
    "log_softmax",
    "logsigmoid",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "margin_ranking_loss",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "max_unpool1d",
    "max_unpool2d",
    "max_unpool3d",
    "mish",
    "mse_loss",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "nll_loss",
    "normalize",
    "one_hot",
    "pad",
    "pairwise_distance",
    "pdist",
    "pixel_shuffle",
    "pixel_unshuffle",
    "poisson_nll_loss",
    "prelu",
    "relu",
    "relu6",
    "rms_norm",
    "rrelu",
    "scaled_dot_product_attention",
    "selu",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "soft_margin_loss",
    "softmax",
    "softmin",
    "softplus",
    "softshrink",
    "softsign",
    "tanh",
    "tanhshrink",
    "threshold",
    "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
    "unfold",
    "upsample",
    "upsample_bilinear",
    "upsample_nearest",
]
