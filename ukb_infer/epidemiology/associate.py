"""``associate``: run, labels and phenotypes to a table, a page and a figure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ukb_infer.epidemiology.analysis import Associations, associate
from ukb_infer.epidemiology.cohort import Sources, read_cohort
from ukb_infer.epidemiology.formulas import names_in
from ukb_infer.epidemiology.imputation import IMPUTATIONS
from ukb_infer.epidemiology.pages import associations_markdown
from ukb_infer.errors import RunError
from ukb_infer.storage import write_texts

TABLE, PAGE, FIGURE = "associations.csv", "associations.md", "associations"


@dataclass(frozen=True, kw_only=True)
class AssociateConfig:
    """What to analyse.

    Attributes:
        sources: run, labels, phenotypes, and what is known of the module's training.
        model: formula; ``out``: folder of the results.
        family, quantile, level, imputations, seed: as for :func:`ukb_infer.epidemiology.analysis.associate`.
        figures: draw the forest plot.
    """

    sources: Sources
    model: str
    out: Path
    family: str = "linear"
    quantile: float = 0.5
    level: float = 0.95
    imputations: int = IMPUTATIONS
    seed: int = 0
    figures: bool = True


@dataclass(frozen=True)
class AssociateResult:
    """The associations, their page, and the files written."""

    associations: Associations
    page: str
    files: tuple[Path, ...]


def run_associate(config: AssociateConfig, say: Callable[[str], None] = print) -> AssociateResult:
    """Analyse the estimates of a run.

    Args:
        config: what to analyse.
        say: receives notes and cautions, which name no participant.

    Raises:
        UsageError: an unusable formula or table, or estimates that must not be combined with these labels.
        RunError: no estimates, a model without unique solution, or a folder that cannot be written.
    """
    cohort = read_cohort(config.sources, names_in(config.model), say)
    found = associate(
        config.model, cohort, family=config.family, quantile=config.quantile, level=config.level,
        imputations=config.imputations, seed=config.seed,
    )  # fmt: skip
    for caution in found.cautions:
        say(f"WARNING {caution}")
    page = associations_markdown(found)
    table = found.table().to_csv(index=False, float_format="%.8g", lineterminator="\n")
    files = list(write_texts(config.out, {TABLE: table, PAGE: page}))
    if config.figures:
        files += _draw(found, config.out, say)
    return AssociateResult(found, page, tuple(files))


def _draw(found: Associations, out: Path, say: Callable[[str], None]) -> list[Path]:
    try:
        from ukb_infer.epidemiology.forest import draw_forest
    except ImportError:
        say('no figure: matplotlib is missing; pip install "ukb-infer[report]"')
        return []
    try:
        return draw_forest(found, out / FIGURE)
    except OSError as error:
        raise RunError(
            f"`out` {out}: the figure cannot be written ({error.strerror}); choose another folder"
        ) from error
