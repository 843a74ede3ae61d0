"""Which way a number improves, as far as its name tells.

Comes in: the name of a number of the history. Goes out: "min", "max", or None where the name does
not say. The last word that is known decides: "f1_loss" is a loss, "val_accuracy" an accuracy.
"""

from __future__ import annotations

import re

_RISING = """
    acc accuracy precision recall sensitivity specificity f1 f2 fbeta f1score auc auroc rocauc roc
    ap map auprc r2 kappa mcc matthews iou miou jaccard dice bleu rouge meteor ndcg mrr hit hits tpr
    tnr ppv npv psnr ssim corr correlation pearson spearman kendall likelihood elbo reward explained
    score
"""
_FALLING = """
    loss losses error err mse rmse mae mape smape msle rmsle mad nll bce ce crossentropy entropy
    logloss perplexity ppl deviance hinge kl kld divergence inaccuracy misclassification brier ece
    wer cer fpr fnr eer fid distance cost regret
"""
_WAY = {**dict.fromkeys(_RISING.split(), "max"), **dict.fromkeys(_FALLING.split(), "min")}
_SPLIT = re.compile(r"[^a-z0-9]+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_OF_DATA = ("val", "valid", "validation", "train", "test", "held", "out")


def direction(name: str) -> str | None:
    """ "min" or "max": which way the number of this name improves; None if it does not say.

    Args:
        name: as in the history; "neg_..." turns what follows around, as in scikit-learn.
    """
    words = [w for w in _SPLIT.split(_CAMEL.sub("_", name).lower()) if w]
    while words and words[0] in _OF_DATA:
        words = words[1:]
    if words and words[0] in ("neg", "negative") and len(words) > 1:
        inner = _of_words(words[1:])
        return {"min": "max", "max": "min", None: None}[inner]
    return _of_words(words)


def _of_words(words: list[str]) -> str | None:
    """What the last known word says, but for "score" at the end, which leaves it to the rest."""
    if len(words) > 1 and words[-1] == "score":
        return _of_words(words[:-1]) or "max"
    for word in reversed(words):
        for form in (word, word.rstrip("0123456789")):
            if form in _WAY:
                return _WAY[form]
    return None
