"""The registry of tasks."""

from __future__ import annotations

from ukb_infer.errors import UsageError
from ukb_infer.tasks.task import Task, TaskTarget
from ukb_infer.text import suggest

_INFARCT = TaskTarget(name="infarct", lower=0.0, upper=1.0)
_MENINGIOMA = TaskTarget(name="meningioma", unit="ml", lower=0.0)
_AGE = TaskTarget(name="age", unit="years", lower=0.0, upper=120.0)
_BLOOD = ("t2s", "swi")
_FLAGS25 = (("flair", "--flair"), ("dwi", "--dwi_b1000"), ("adc", "--adc"), ("t2s", "--t2s"), ("swi", "--swi"))
_FLAGS26 = (("flair", "--flair"), ("dwi", "--dwi"), ("adc", "--adc"), ("t2s", "--t2s"), ("swi", "--swi"))
_STROKE = (("flair",), ("dwi",), ("adc",), _BLOOD)
_GROUPS = ("sex", "age_group", "site")


def _body(name: str, target: TaskTarget, output: str = "regression") -> Task:
    metrics = ("auroc",) if output == "class" else ("mae", "r")
    return Task(
        name=f"body-{name}", title=f"{name} from the projection of a body", dimension=2, inputs=(("projection",),),
        output=output, targets=(target,), metrics=metrics, groups=("sex",), suite="body",  # type: ignore[arg-type]
    )  # fmt: skip


#: All tasks by name.
TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="fomo25-infarct", title="Infarct: yes or no", dimension=3, inputs=_STROKE, output="class",
            targets=(_INFARCT,), metrics=("auroc",), groups=_GROUPS, suite="fomo25", number=1, flags=_FLAGS25,
        ),
        Task(
            name="fomo25-meningioma", title="Outline of meningiomas", dimension=3,
            inputs=(("flair",), ("dwi",), _BLOOD), output="segmentation", targets=(_MENINGIOMA,),
            metrics=("dice", "nsd"), groups=_GROUPS, suite="fomo25", number=2,
            flags=tuple(pair for pair in _FLAGS25 if pair[0] != "adc"),
        ),
        Task(
            name="fomo25-brain-age", title="Age from T1 and T2", dimension=3, inputs=(("t1",), ("t2",)),
            output="regression", targets=(_AGE,), metrics=("mae", "r"), groups=_GROUPS, suite="fomo25", number=3,
            flags=(("t1", "--t1"), ("t2", "--t2")),
        ),
        Task(
            name="fomo26-infarct", title="Infarct: yes or no", dimension=3, inputs=_STROKE, output="class",
            targets=(_INFARCT,), metrics=("auroc",), groups=_GROUPS, suite="fomo26", number=1, weight=0.10,
            flags=_FLAGS26,
        ),
        Task(
            name="fomo26-meningioma", title="Outline of meningiomas", dimension=3,
            inputs=(("flair",), ("dwi",), _BLOOD),  # a container may be given --adc, or not
            output="segmentation", targets=(_MENINGIOMA,), metrics=("dice", "nsd"), groups=_GROUPS, suite="fomo26",
            number=2, weight=0.25, flags=_FLAGS26,
        ),
        Task(
            name="fomo26-brain-age", title="Age from T1", dimension=3, inputs=(("t1",),), output="regression",
            targets=(_AGE,), metrics=("mae", "r"), groups=_GROUPS, suite="fomo26", number=3, weight=0.10,
            flags=(("t1", "--t1"),),
        ),
        Task(
            name="fomo26-trigeminal", title="Outline of the trigeminal nerves", dimension=3, inputs=(("t2",),),
            output="segmentation",
            targets=(TaskTarget(name="trigeminal_1", unit="ml", lower=0.0),
                     TaskTarget(name="trigeminal_2", unit="ml", lower=0.0)),
            metrics=("dice", "nsd"), groups=_GROUPS, suite="fomo26", number=4, weight=0.25, flags=(("t2", "--t2"),),
        ),
        Task(
            name="fomo26-polymicrogyria", title="Polymicrogyria: yes or no", dimension=3, inputs=(("t1",),),
            output="class", targets=(TaskTarget(name="polymicrogyria", lower=0.0, upper=1.0),), metrics=("auroc",),
            groups=_GROUPS, suite="fomo26", number=5, weight=0.10, flags=(("t1", "--t1"),),
        ),
        Task(
            name="fomo26-probe", title="Linear probe of the embedding", dimension=3, inputs=(("t1", "t2", "flair"),),
            output="embedding", targets=(), metrics=("auroc",), groups=_GROUPS, suite="fomo26", number=6, weight=0.10,
        ),
        Task(
            name="fomo26-fairness", title="Fairness of the embedding", dimension=3, inputs=(("t1", "t2", "flair"),),
            output="embedding", targets=(), metrics=("fairness",), groups=_GROUPS, suite="fomo26", number=7,
            weight=0.10,
        ),
        Task(
            name="brain-age", title="Age with an interval, from the T1 of UK Biobank", dimension=3, inputs=(("t1",),),
            output="regression", targets=(_AGE,), metrics=("mae", "r"), groups=("sex",),
        ),
        _body("age", _AGE),
        _body("vat", TaskTarget(name="AtlasVatVolume", unit="L", lower=0.0)),
        _body("liver-fat", TaskTarget(name="liverFat", unit="%", lower=0.0, upper=100.0)),
        _body("diabetes", TaskTarget(name="type2Diabetes", lower=0.0, upper=1.0), "class"),
    )
}  # fmt: skip


def get_task(name: str) -> Task:
    """Task by name.

    Raises:
        UsageError: unknown; the message suggests the nearest and lists all.
    """
    if name not in TASKS:
        raise UsageError(f"unknown {name!r}{suggest(name, TASKS)} (choices: {', '.join(TASKS)})", field="task")
    return TASKS[name]
