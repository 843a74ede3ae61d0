"""Modules and losses with torch's names, shapes and definitions.

A name is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpubp.nn import functional, init, utils
    from gpubp.nn.activation import (
        CELU,
        ELU,
        GELU,
        SELU,
        Hardshrink,
        Hardsigmoid,
        Hardswish,
        Hardtanh,
        LeakyReLU,
        LogSigmoid,
        Mish,
        ReLU,
        ReLU6,
        RReLU,
        Sigmoid,
        SiLU,
        Softplus,
        Softshrink,
        Softsign,
        Tanh,
        Tanhshrink,
        Threshold,
    )
    from gpubp.nn.attention import MultiheadAttention
    from gpubp.nn.augment import (
        RandomCrop,
        RandomHorizontalFlip,
        RandomShift,
        RandomVerticalFlip,
    )
    from gpubp.nn.augment_affine import (
        RandomAffine,
        RandomRotation,
    )
    from gpubp.nn.channel_norm import (
        BatchNorm1d,
        BatchNorm2d,
        BatchNorm3d,
        InstanceNorm1d,
        InstanceNorm2d,
        InstanceNorm3d,
    )
    from gpubp.nn.collection import ModuleDict, ModuleList, ParameterDict, ParameterList
    from gpubp.nn.container import Sequential
    from gpubp.nn.conv import Conv1d, Conv2d, Conv3d
    from gpubp.nn.conv_transposed import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
    from gpubp.nn.ctc import CTCLoss
    from gpubp.nn.dropout import (
        AlphaDropout,
        Dropout,
        Dropout1d,
        Dropout2d,
        Dropout3d,
        FeatureAlphaDropout,
    )
    from gpubp.nn.embedding import Embedding
    from gpubp.nn.embedding_bag import EmbeddingBag
    from gpubp.nn.fold import (
        Fold,
        Unfold,
    )
    from gpubp.nn.gate import GLU, PReLU
    from gpubp.nn.key_value_cache import KeyValueCache
    from gpubp.nn.lazy import (
        LazyBatchNorm1d,
        LazyBatchNorm2d,
        LazyBatchNorm3d,
        LazyConv1d,
        LazyConv2d,
        LazyConv3d,
        LazyConvTranspose1d,
        LazyConvTranspose2d,
        LazyConvTranspose3d,
        LazyInstanceNorm1d,
        LazyInstanceNorm2d,
        LazyInstanceNorm3d,
        LazyLinear,
    )
    from gpubp.nn.linear import Bilinear, Linear
    from gpubp.nn.loss import CrossEntropyLoss, MultiMarginLoss, NLLLoss
    from gpubp.nn.loss_binary import (
        BCELoss,
        BCEWithLogitsLoss,
        MultiLabelSoftMarginLoss,
        SoftMarginLoss,
    )
    from gpubp.nn.loss_distances import (
        CosineSimilarity,
        MultiLabelMarginLoss,
        PairwiseDistance,
        TripletMarginLoss,
        TripletMarginWithDistanceLoss,
    )
    from gpubp.nn.loss_linear import AdaptiveLogSoftmaxWithLoss, LinearCrossEntropyLoss
    from gpubp.nn.loss_pairs import CosineEmbeddingLoss, HingeEmbeddingLoss, MarginRankingLoss
    from gpubp.nn.loss_values import (
        GaussianNLLLoss,
        HuberLoss,
        KLDivLoss,
        L1Loss,
        MSELoss,
        PoissonNLLLoss,
        SmoothL1Loss,
    )
    from gpubp.nn.model_summary import Summary, SummaryRow, summary
    from gpubp.nn.module import Module
    from gpubp.nn.normalization import GroupNorm, LayerNorm, RMSNorm
    from gpubp.nn.padding import (
        CircularPad1d,
        CircularPad2d,
        CircularPad3d,
        ConstantPad1d,
        ConstantPad2d,
        ConstantPad3d,
        ReflectionPad1d,
        ReflectionPad2d,
        ReflectionPad3d,
        ReplicationPad1d,
        ReplicationPad2d,
        ReplicationPad3d,
        ZeroPad1d,
        ZeroPad2d,
        ZeroPad3d,
    )
    from gpubp.nn.parameter import Buffer, Parameter, UninitializedBuffer, UninitializedParameter
    from gpubp.nn.pooling import (
        AvgPool1d,
        AvgPool2d,
        AvgPool3d,
        LPPool1d,
        LPPool2d,
        LPPool3d,
        MaxPool1d,
        MaxPool2d,
        MaxPool3d,
    )
    from gpubp.nn.pooling_adaptive import (
        AdaptiveAvgPool1d,
        AdaptiveAvgPool2d,
        AdaptiveAvgPool3d,
        AdaptiveMaxPool1d,
        AdaptiveMaxPool2d,
        AdaptiveMaxPool3d,
        FractionalMaxPool2d,
        FractionalMaxPool3d,
    )
    from gpubp.nn.recurrent import GRU, LSTM, RNN
    from gpubp.nn.recurrent_cells import GRUCell, LSTMCell, RNNCell
    from gpubp.nn.response import (
        CrossMapLRN2d,
        LocalResponseNorm,
    )
    from gpubp.nn.rotary import RotaryEmbedding
    from gpubp.nn.shape import Flatten, Identity, Unflatten
    from gpubp.nn.softmax import LogSoftmax, Softmax, Softmax2d, Softmin
    from gpubp.nn.stateless import functional_call
    from gpubp.nn.transformer import Transformer
    from gpubp.nn.transformer_layers import TransformerDecoderLayer, TransformerEncoderLayer
    from gpubp.nn.transformer_stacks import TransformerDecoder, TransformerEncoder
    from gpubp.nn.unpooling import MaxUnpool1d, MaxUnpool2d, MaxUnpool3d
    from gpubp.nn.upsampling import (
        ChannelShuffle,
        PixelShuffle,
        PixelUnshuffle,
        Upsample,
        UpsamplingBilinear2d,
        UpsamplingNearest2d,
    )
else:
    from gpubp import lazy

    # The same names, by the submodule that has them.
    _LAZY = lazy.by_home(
        {
            "": "functional init utils",
            "activation": """
                CELU ELU GELU SELU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU
                LogSigmoid Mish ReLU ReLU6 RReLU Sigmoid SiLU Softplus Softshrink Softsign Tanh
                Tanhshrink Threshold
            """,
            "attention": "MultiheadAttention",
            "augment": "RandomCrop RandomHorizontalFlip RandomShift RandomVerticalFlip",
            "augment_affine": "RandomAffine RandomRotation",
            "channel_norm": """
                BatchNorm1d BatchNorm2d BatchNorm3d InstanceNorm1d InstanceNorm2d InstanceNorm3d
            """,
            "collection": "ModuleDict ModuleList ParameterDict ParameterList",
            "container": "Sequential",
            "conv": "Conv1d Conv2d Conv3d",
            "conv_transposed": "ConvTranspose1d ConvTranspose2d ConvTranspose3d",
            "ctc": "CTCLoss",
            "dropout": "AlphaDropout Dropout Dropout1d Dropout2d Dropout3d FeatureAlphaDropout",
            "embedding": "Embedding",
            "embedding_bag": "EmbeddingBag",
            "fold": "Fold Unfold",
            "stateless": "functional_call",
            "gate": "GLU PReLU",
            "key_value_cache": "KeyValueCache",
            "lazy": """
                LazyBatchNorm1d LazyBatchNorm2d LazyBatchNorm3d LazyConv1d LazyConv2d LazyConv3d
                LazyConvTranspose1d LazyConvTranspose2d LazyConvTranspose3d LazyInstanceNorm1d
                LazyInstanceNorm2d LazyInstanceNorm3d LazyLinear
            """,
            "linear": "Bilinear Linear",
            "loss": "CrossEntropyLoss MultiMarginLoss NLLLoss",
            "loss_binary": "BCELoss BCEWithLogitsLoss MultiLabelSoftMarginLoss SoftMarginLoss",
            "loss_distances": """
                CosineSimilarity MultiLabelMarginLoss PairwiseDistance TripletMarginLoss
                TripletMarginWithDistanceLoss
            """,
            "loss_linear": "AdaptiveLogSoftmaxWithLoss LinearCrossEntropyLoss",
            "loss_pairs": "CosineEmbeddingLoss HingeEmbeddingLoss MarginRankingLoss",
            "loss_values": """
                GaussianNLLLoss HuberLoss KLDivLoss L1Loss MSELoss PoissonNLLLoss SmoothL1Loss
            """,
            "module": "Module",
            "normalization": "GroupNorm LayerNorm RMSNorm",
            "padding": """
                CircularPad1d CircularPad2d CircularPad3d ConstantPad1d ConstantPad2d
                ConstantPad3d ReflectionPad1d ReflectionPad2d ReflectionPad3d ReplicationPad1d
                ReplicationPad2d ReplicationPad3d ZeroPad1d ZeroPad2d ZeroPad3d
            """,
            "parameter": "Buffer Parameter UninitializedBuffer UninitializedParameter",
            "pooling": """
                AvgPool1d AvgPool2d AvgPool3d LPPool1d LPPool2d LPPool3d MaxPool1d MaxPool2d
                MaxPool3d
            """,
            "pooling_adaptive": """
                AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d AdaptiveMaxPool1d
                AdaptiveMaxPool2d AdaptiveMaxPool3d FractionalMaxPool2d FractionalMaxPool3d
            """,
            "recurrent": "GRU LSTM RNN",
            "recurrent_cells": "GRUCell LSTMCell RNNCell",
            "response": "CrossMapLRN2d LocalResponseNorm",
            "rotary": "RotaryEmbedding",
            "shape": "Flatten Identity Unflatten",
            "softmax": "LogSoftmax Softmax Softmax2d Softmin",
            "model_summary": "Summary SummaryRow summary",
            "transformer": "Transformer",
            "transformer_layers": "TransformerDecoderLayer TransformerEncoderLayer",
            "transformer_stacks": "TransformerDecoder TransformerEncoder",
            "unpooling": "MaxUnpool1d MaxUnpool2d MaxUnpool3d",
            "upsampling": """
                ChannelShuffle PixelShuffle PixelUnshuffle Upsample UpsamplingBilinear2d
                UpsamplingNearest2d
            """,
        }
    )
    __getattr__, __dir__ = lazy.names("gpubp.nn", _LAZY)

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GLU",
    "GRU",
    "LSTM",
    "RNN",
    "SELU",
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveLogSoftmaxWithLoss",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "AlphaDropout",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "BCELoss",
    "BCEWithLogitsLoss",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "Bilinear",
    "Buffer",
    "CTCLoss",
    "ChannelShuffle",
    "CircularPad1d",
    "CircularPad2d",
    "CircularPad3d",
    "ConstantPad1d",
    "ConstantPad2d",
    "ConstantPad3d",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "CosineEmbeddingLoss",
    "CosineSimilarity",
    "CrossEntropyLoss",
    "CrossMapLRN2d",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "Embedding",
    "EmbeddingBag",
    "FeatureAlphaDropout",
    "Flatten",
    "Fold",
    "FractionalMaxPool2d",
    "FractionalMaxPool3d",
    "GRUCell",
    "GaussianNLLLoss",
    "GroupNorm",
    "Hardshrink",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "HingeEmbeddingLoss",
    "HuberLoss",
    "Identity",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "KLDivLoss",
    "KeyValueCache",
    "L1Loss",
    "LPPool1d",
    "LPPool2d",
    "LPPool3d",
    "LSTMCell",
    "LayerNorm",
    "LazyBatchNorm1d",
    "LazyBatchNorm2d",
    "LazyBatchNorm3d",
    "LazyConv1d",
    "LazyConv2d",
    "LazyConv3d",
    "LazyConvTranspose1d",
    "LazyConvTranspose2d",
    "LazyConvTranspose3d",
    "LazyInstanceNorm1d",
    "LazyInstanceNorm2d",
    "LazyInstanceNorm3d",
    "LazyLinear",
    "LeakyReLU",
    "Linear",
    "LinearCrossEntropyLoss",
    "LocalResponseNorm",
    "LogSigmoid",
    "LogSoftmax",
    "MSELoss",
    "MarginRankingLoss",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "MaxUnpool1d",
    "MaxUnpool2d",
    "MaxUnpool3d",
    "Mish",
    "Module",
    "ModuleDict",
    "ModuleList",
    "MultiLabelMarginLoss",
    "MultiLabelSoftMarginLoss",
    "MultiMarginLoss",
    "MultiheadAttention",
    "NLLLoss",
    "PReLU",
    "PairwiseDistance",
    "Parameter",
    "ParameterDict",
    "ParameterList",
    "PixelShuffle",
    "PixelUnshuffle",
    "PoissonNLLLoss",
    "RMSNorm",
    "RNNCell",
    "RReLU",
    "RandomAffine",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomRotation",
    "RandomShift",
    "RandomVerticalFlip",
    "ReLU",
    "ReLU6",
    "ReflectionPad1d",
    "ReflectionPad2d",
    "ReflectionPad3d",
    "ReplicationPad1d",
    "ReplicationPad2d",
    "ReplicationPad3d",
    "RotaryEmbedding",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "SmoothL1Loss",
    "SoftMarginLoss",
    "Softmax",
    "Softmax2d",
    "Softmin",
    "Softplus",
    "Softshrink",
    "Softsign",
    "Summary",
    "SummaryRow",
    "Tanh",
    "Tanhshrink",
    "Threshold",
    "Transformer",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayer",
    "TripletMarginLoss",
    "TripletMarginWithDistanceLoss",
    "Unflatten",
    "Unfold",
    "UninitializedBuffer",
    "UninitializedParameter",
    "Upsample",
    "UpsamplingBilinear2d",
    "UpsamplingNearest2d",
    "ZeroPad1d",
    "ZeroPad2d",
    "ZeroPad3d",
    "functional",
    "functional_call",
    "init",
    "summary",
    "utils",
]
