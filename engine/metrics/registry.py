"""Every metric of the project: which way is better, and which version of its definition it has.

A definition's version is raised when its values change their meaning, so that tables of different
versions are never put side by side unnoticed.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Direction = Literal["higher", "lower", "none"]


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """What a reader of a table has to know of a metric.

    Attributes:
        name: As in the `metric` column.
        direction: Which values are better; `none` where neither is.
        definition_version: Raised when the definition changes.
        source: Where the definition comes from.
        title: For tables and figures.
    """

    name: str
    direction: Direction
    definition_version: int
    source: str
    title: str


_OWN = "rayxai"
_ERASER = "DeYoung et al. 2020 (ERASER), section 4"
_FEATURES = "Krishna et al. 2022, feature agreement"
_SPARSITY = "Hurley & Rickard 2009, table I"

_CONTROL = "control variates: Glasserman 2003, section 4.1"
_PERMUTED = "Hoeffding 1951, exact permutation mean"

_ALL = (
    # performance
    MetricInfo("accuracy", "higher", 1, "share of predictions equal to gold", "Accuracy"),
    MetricInfo("precision", "higher", 1, "van Rijsbergen 1979, chapter 7", "Precision"),
    MetricInfo("recall", "higher", 1, "van Rijsbergen 1979, chapter 7", "Recall"),
    MetricInfo("f1", "higher", 1, "van Rijsbergen 1979, chapter 7", "F1"),
    MetricInfo("mcc", "higher", 1, "Gorodkin 2004, R_K", "Matthews correlation"),
    MetricInfo("auroc", "higher", 1, "Hanley & McNeil 1982; macro one-vs-rest", "AUROC"),
    MetricInfo("nll", "lower", 1, "Good 1952, logarithmic score", "Negative log-likelihood"),
    MetricInfo("brier", "lower", 1, "Brier 1950; halved for two labels", "Brier score"),
    MetricInfo("ece", "lower", 1, "Guo et al. 2017, equation 3, 15 bins", "Calibration error"),
    MetricInfo("majority_rate", "none", 1, "share of the commonest gold label", "Majority rate"),
    MetricInfo("confusion", "none", 1, "count of a gold and predicted label", "Confusion matrix"),
    MetricInfo("probability_share", "none", 1, _OWN, "Share of examples in a probability bin"),
    # faithfulness
    MetricInfo("comprehensiveness", "higher", 1, _ERASER, "Comprehensiveness (AOPC)"),
    MetricInfo("sufficiency", "lower", 1, _ERASER, "Sufficiency (AOPC)"),
    MetricInfo("comprehensiveness_at_k", "higher", 1, _ERASER, "Comprehensiveness at size"),
    MetricInfo("sufficiency_at_k", "lower", 1, _ERASER, "Sufficiency at size"),
    MetricInfo("deletion_auc", "lower", 1, "Petsiuk et al. 2018 (RISE), deletion", "Deletion AUC"),
    MetricInfo("deletion_gain", "higher", 1, _OWN, "Deletion gain over random order"),
    MetricInfo("r2", "higher", 1, "Ribeiro et al. 2016 (lime 0.2), local R²", "Weighted R²"),
    MetricInfo("abs_residual", "lower", 1, "Lundberg & Lee 2017, property 1", "|Residual|"),
    # complexity
    MetricInfo("gini", "higher", 1, _SPARSITY + ", × n/(n−1)", "Gini"),
    MetricInfo("entropy", "lower", 1, "Bhatt et al. 2020, complexity, / ln n", "Entropy"),
    MetricInfo("effective_size", "lower", 1, "Hill 1973, order 1", "Effective number of features"),
    MetricInfo("top_k_mass", "higher", 1, _OWN, "Share of the top k features"),
    # agreement
    MetricInfo("top_k_overlap", "none", 1, _FEATURES, "Top-k overlap"),
    MetricInfo("spearman", "none", 1, "Spearman 1904, average ranks", "Rank correlation"),
    MetricInfo("cosine", "none", 1, "cosine of the angle", "Cosine"),
    # comparisons: how well two models predict, and how their attributions differ
    MetricInfo("prediction_agreement", "none", 1, _OWN, "Same prediction"),
    MetricInfo("only_reference_right", "none", 1, "McNemar 1947, b", "Only the reference right"),
    MetricInfo("only_other_right", "none", 1, "McNemar 1947, c", "Only the other right"),
    MetricInfo("mcnemar_p", "none", 1, "McNemar 1947, exact binomial", "McNemar exact p"),
    MetricInfo("mcnemar_mid_p", "none", 1, "Fagerland et al. 2013", "McNemar mid-p"),
    MetricInfo("pearson", "none", 1, "Pearson 1895", "Correlation"),
    MetricInfo("abs_cosine", "none", 1, "cosine of the magnitudes", "Cosine of magnitudes"),
    MetricInfo("abs_cosine_null", "none", 1, _PERMUTED, "Cosine of magnitudes, words permuted"),
    MetricInfo("abs_cosine_gain", "none", 1, _PERMUTED, "Cosine of magnitudes minus permuted"),
    MetricInfo("top1_overlap", "none", 1, _FEATURES + ", by |φ|", "Same top word"),
    MetricInfo("top3_overlap", "none", 1, _FEATURES + ", by |φ|", "Top-3 overlap"),
    MetricInfo("top3_jaccard", "none", 1, "Jaccard 1912, by |φ|", "Top-3 Jaccard"),
    MetricInfo("top5_overlap", "none", 1, _FEATURES + ", by |φ|", "Top-5 overlap"),
    MetricInfo("top5_jaccard", "none", 1, "Jaccard 1912, by |φ|", "Top-5 Jaccard"),
    MetricInfo("sign_flips", "none", 1, _OWN, "Sign flips"),
    MetricInfo("sign_flip_ratio", "none", 1, _OWN, "Share of sign flips"),
    MetricInfo("mass_ratio", "none", 1, _OWN, "Ratio of total magnitude"),
    MetricInfo("answer_correlation", "none", 1, _CONTROL, "Correlation of answers"),
    MetricInfo("control_gain", "none", 1, _CONTROL + ", 1/(1 − ρ²)", "Fewer evaluations, times"),
    MetricInfo("mass", "none", 1, _OWN, "Total magnitude"),
    MetricInfo("mean_magnitude", "none", 1, _OWN, "Mean magnitude"),
    # plausibility
    MetricInfo("iou", "higher", 1, _ERASER + ", over positions", "Intersection over union"),
    MetricInfo("token_f1", "higher", 1, _ERASER + ", over positions", "Token F1"),
    MetricInfo("auprc", "higher", 1, _ERASER + ", average precision", "AUPRC"),
    # cost: means a row of `timings`, totals over them
    MetricInfo("marginal_seconds", "lower", 1, _OWN, "Host seconds under sharing"),
    MetricInfo("standalone_seconds", "lower", 1, _OWN, "Host seconds without sharing"),
    MetricInfo("step_seconds", "lower", 1, _OWN, "Seconds outside the host"),
    MetricInfo("swap_seconds", "lower", 1, _OWN, "Seconds of a switch of adapters"),
    MetricInfo("evaluations_asked", "lower", 1, _OWN, "Evaluations asked"),
    MetricInfo("evaluations_first", "lower", 1, _OWN, "Evaluations first used"),
    MetricInfo("evaluations_stored", "none", 1, _OWN, "Evaluations from the store"),
    MetricInfo("evaluations_new", "lower", 1, _OWN, "Evaluations computed"),
    MetricInfo("tokens_asked", "lower", 1, _OWN, "Tokens asked"),
    MetricInfo("tokens_new", "lower", 1, _OWN, "Tokens computed"),
    MetricInfo("total_marginal_seconds", "lower", 1, _OWN, "Host seconds under sharing, total"),
    MetricInfo("total_standalone_seconds", "lower", 1, _OWN, "Host seconds unshared, total"),
    MetricInfo("total_step_seconds", "lower", 1, _OWN, "Seconds outside the host, total"),
    MetricInfo("total_swaps", "lower", 1, _OWN, "Switches of adapters"),
    MetricInfo("total_swap_seconds", "lower", 1, _OWN, "Seconds of switching adapters, total"),
    MetricInfo("total_evaluations_asked", "lower", 1, _OWN, "Evaluations asked, total"),
    MetricInfo("total_evaluations_first", "lower", 1, _OWN, "Evaluations first used, total"),
    MetricInfo("total_evaluations_stored", "none", 1, _OWN, "Evaluations from the store, total"),
    MetricInfo("total_evaluations_new", "lower", 1, _OWN, "Evaluations computed, total"),
    MetricInfo("total_tokens_asked", "lower", 1, _OWN, "Tokens asked, total"),
    MetricInfo("total_tokens_new", "lower", 1, _OWN, "Tokens computed, total"),
    MetricInfo("sharing_rate", "higher", 1, _OWN, "Share of evaluations not computed again"),
    MetricInfo("shared_across_explainers", "none", 1, _OWN, "Share used by another one before"),
    MetricInfo("shared_across_runs", "none", 1, _OWN, "Share found in the store"),
    MetricInfo("shared_in_round", "none", 1, _OWN, "Share with another one's prompt"),
)

REGISTRY = MappingProxyType({metric.name: metric for metric in _ALL})
"""Name -> what is known of the metric."""


def info(name: str) -> MetricInfo:
    """Return what is known of a metric.

    Raises:
        KeyError: It isn't registered.
    """
    try:
        return REGISTRY[name]
    except KeyError:
        raise KeyError(f"metric {name!r} is not in engine/metrics/registry.py: add it") from None
