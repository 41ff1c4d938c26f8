"""``evaluate``: a run against labels, as tables and figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ukb_infer.errors import RunError, UsageError
from ukb_infer.evaluation import Comparison, compare, read_predictions
from ukb_infer.evaluation.compare import metrics_csv, metrics_markdown
from ukb_infer.evaluation.groups import compare_groups
from ukb_infer.labels import read_definitions, read_labels
from ukb_infer.report.card import known_of_source, write_card
from ukb_infer.report.report import read_phenotypes
from ukb_infer.storage import atomic_write_text


@dataclass(frozen=True)
class EvaluateConfig:
    """What to evaluate.

    Attributes:
        run: folder of ``predict`` or ``cross-validate``, or a published ``predictions.csv``.
        labels: table of labels.
        out: folder of tables and figures.
        targets: names, empty for all labels.
        units, define: as for training.
        replicates: bootstrap replicates; ``seed`` of their draws.
        figures: draw them.
        phenotypes: table with sex, age or both, for groups; None takes them from the labels.
        divisors: unit divisors of the published system's targets that are not known here, by name.
    """

    run: Path
    labels: Path
    out: Path
    targets: tuple[str, ...] = ()
    units: Mapping[str, str] = field(default_factory=dict)
    define: Path | None = None
    replicates: int = 1000
    seed: int = 0
    figures: bool = True
    phenotypes: Path | None = None
    divisors: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.replicates <= 100_000:
            raise UsageError(f"`replicates`: got {self.replicates}, expected 0 to 100000")


@dataclass(frozen=True)
class EvaluateResult:
    """The comparison, its table as Markdown, and the files written."""

    comparison: Comparison
    table: str
    files: tuple[Path, ...]


def run_evaluate(config: EvaluateConfig, say: Callable[[str], None] = print) -> EvaluateResult:
    """Evaluate a run.

    Args:
        config: what to evaluate.
        say: receives notes.

    Raises:
        UsageError: unusable labels, or none for the run.
        RunError: no predictions, or the folder cannot be written.
    """
    predictions = read_predictions(config.run, config.divisors)
    definitions = read_definitions(config.define) if config.define else {}
    definitions |= {n: t.spec for n, t in predictions.targets.items() if t.spec.group == "own" and n not in definitions}
    phenotypes = read_phenotypes(config.phenotypes)
    labels = read_labels(config.labels, config.targets, units=config.units, definitions=definitions)
    for line in (*predictions.notes, *map(str, labels.summaries)):
        say(line)
    comparison = compare(predictions, labels, replicates=config.replicates, seed=config.seed)
    if comparison.without_estimate:
        say(f"not predicted by the run: {', '.join(comparison.without_estimate)}")
    if comparison.unlabelled:
        say(f"{comparison.unlabelled} of {len(predictions.keys)} scans have no label")
    listed, matching = labels.count_matches(predictions.keys)
    if matching < listed:
        say(f"{matching} of {listed} labelled participants (or scans) are in the run, {listed - matching} are not")
    table = metrics_markdown(comparison)
    try:
        config.out.mkdir(parents=True, exist_ok=True)
        files = [config.out / "metrics.csv", config.out / "metrics.md"]
        atomic_write_text(files[0], metrics_csv(comparison))
        atomic_write_text(files[1], f"# Agreement of {comparison.source}\n\n{table}")
        groups = compare_groups(predictions, labels, phenotypes)
        files += write_card(
            config.out, f"Evaluation of {config.run.resolve().name}", comparison, groups, known_of_source(config.run)
        )
    except OSError as error:
        raise RunError(f"`out` {config.out} cannot be written ({error.strerror}); choose another folder") from error
    if config.figures:
        files += _draw(config, comparison, say)
    return EvaluateResult(comparison, table, tuple(files))


def _draw(config: EvaluateConfig, comparison: Comparison, say: Callable[[str], None]) -> list[Path]:
    try:
        from ukb_infer.report import figures
    except ImportError:
        say('no figures: matplotlib is missing; pip install "ukb-infer[report]"')
        return []
    few = [r.spec.name for r in comparison.results if r.count < figures.FEWEST_SCANS]
    if few:
        say(f"no figures of {', '.join(few)}: fewer than {figures.FEWEST_SCANS} scans have both label and estimate")
    files = figures.draw_all(comparison, config.out / "figures")
    history = (config.run if config.run.is_dir() else config.run.parent) / "history.csv"
    if history.is_file():
        files += figures.draw_learning_curves(history, config.out / "figures")
    return files
