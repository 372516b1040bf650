"""The flags of the original scripts, under their names, types and documented defaults.

`jamesjyoon/llm_interpretability` and `llmbbi/module` document them in their READMEs. Every switch
has its `--no-…` form, which the originals promise and don't have.
"""

from __future__ import annotations

import argparse

ALL = "None, 0 or a negative number: all"


def count(text: str) -> int | None:
    """Return a number of examples, None for all of them: `None`, 0 and -1 say so."""
    if text.strip().lower() in ("none", "all"):
        return None
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a whole number nor None") from None
    return number if number > 0 else None


def modular_parser() -> argparse.ArgumentParser:
    """Return the flags of `run_pipeline_modular.py`: SST-2, zero-shot against fine-tuned."""
    parser = _parser("run_pipeline_modular", "unsloth/Llama-3.2-1B-Instruct")
    _output(parser, "outputs/modular_pipeline_fixed")
    _sizes(parser, train_size=None, eval_size=50)
    _epochs(parser)
    _switch(parser, "--finetune", True, "Fine-tune with LoRA and evaluate again.")
    parser.add_argument(
        "--max-seq-length", type=int, default=512, help="Longest training sequence, in tokens."
    )
    _switch(parser, "--load-in-4bit", True, "Load the model in 4 bits (nf4).")
    _switch(parser, "--run-xai", True, "Explain, and measure the explanations.")
    _samples(_ours(parser))
    return parser


def xai_parser() -> argparse.ArgumentParser:
    """Return the flags of `llama_3.2_1B_xai.py`: LIME and KernelSHAP on SST-2."""
    parser = _parser("xai", "meta-llama/Llama-3.2-1B")
    _output(parser, "outputs/combined_xai_analysis")
    _sizes(parser, train_size=1000, eval_size=50)
    _epochs(parser)
    _switch(parser, "--finetune", True, "Fine-tune with LoRA and evaluate again.")
    _switch(parser, "--run-lime", True, "Explain with LIME beside KernelSHAP.")
    _switch(parser, "--run-xai", True, "Explain, and measure the explanations.")
    _switch(parser, "--load-in-4bit", False, "Load the model in 4 bits (nf4).")
    _switch(parser, "--load-in-8bit", False, "Load the model in 8 bits.")
    _token(parser)
    _samples(_ours(parser))
    return parser


def shap_parser() -> argparse.ArgumentParser:
    """Return the flags of `experiments_llama_3.2_1B.py`: SHAP before and after fine-tuning."""
    parser = _parser("shap_comparison", "meta-llama/Llama-3.2-1B")
    parser.add_argument(
        "--dataset-name",
        default="mteb/tweet_sentiment_extraction",
        help="Hugging Face data set, or a file.",
    )
    parser.add_argument("--dataset-config", default=None, help="Its configuration name.")
    parser.add_argument(
        "--train-subset", type=count, default=2000, help=f"Training examples ({ALL})."
    )
    parser.add_argument(
        "--eval-subset", type=count, default=1000, help=f"Evaluation examples ({ALL})."
    )
    parser.add_argument("--train-split", default="train", help="Split of the training examples.")
    parser.add_argument("--eval-split", default="test", help="Split of the evaluation examples.")
    parser.add_argument("--text-field", default="text", help="Column of the text.")
    parser.add_argument("--label-field", default="label", help="Column of the label.")
    parser.add_argument(
        "--label-space",
        type=int,
        nargs="+",
        default=None,
        metavar="INT",
        help="Numeric labels to keep; examples with others are left out. By default 0 and 1.",
    )
    _switch(parser, "--finetune", False, "Fine-tune with LoRA and evaluate again.")
    _switch(parser, "--run-shap", True, "Explain with SHAP.")
    parser.add_argument(
        "--shap-example-count", type=count, default=10, help=f"Examples explained ({ALL})."
    )
    parser.add_argument(
        "--shap-max-evals",
        type=int,
        default=200,
        help="Evaluations of an explanation; raised to what the longest text needs.",
    )
    _switch(parser, "--load-in-4bit", True, "Load the model in 4 bits (nf4).")
    _output(parser, "outputs/tweet_sentiment_extraction")
    _token(parser)
    _ours(parser)
    return parser


def _parser(name: str, model: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m jobs.{name}",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--model-name", default=model, help="Hub id or local folder.")
    return parser


def _output(parser: argparse.ArgumentParser, folder: str) -> None:
    parser.add_argument("--output-dir", default=folder, help="Folder of all that is written.")


def _sizes(parser: argparse.ArgumentParser, train_size: int | None, eval_size: int) -> None:
    parser.add_argument(
        "--train-size", type=count, default=train_size, help=f"Training examples ({ALL})."
    )
    parser.add_argument(
        "--eval-sample-size", type=count, default=eval_size, help=f"Examples explained ({ALL})."
    )


def _epochs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--epochs", type=float, default=1.0, help="Epochs of the fine-tuning.")


def _switch(parser: argparse.ArgumentParser, flag: str, default: bool, says: str) -> None:
    parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=default, help=says)


def _token(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--huggingface-token",
        default=argparse.SUPPRESS,  # so that help and errors never print one
        help="Token for gated models; HF_TOKEN or HUGGINGFACE_TOKEN if not given. Kept in memory.",
    )


def _ours(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    group = parser.add_argument_group("not in the original")
    group.add_argument("--train-data", default=None, help="File of the training examples.")
    group.add_argument("--eval-data", default=None, help="File of the evaluation examples.")
    group.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="K=V",
        help="Override a key of the sweep, for example --set cluster.hosts=2.",
    )
    return group


def _samples(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--num-samples",
        type=int,
        default=512,
        help="Evaluations of a LIME or KernelSHAP explanation; raised to what the longest text "
        "needs. The original has 50 and 40.",
    )
