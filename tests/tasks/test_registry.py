"""The registry of tasks."""

import pytest

from ukb_infer.errors import UsageError
from ukb_infer.targets import TARGETS
from ukb_infer.tasks.registry import TASKS, get_task
from ukb_infer.tasks.task import MODALITIES


def test_weights_of_a_suite_sum_to_one() -> None:
    assert sum(t.weight for t in TASKS.values() if t.suite == "fomo26") == pytest.approx(1.0)


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda t: t.name)
def test_inputs_are_known_modalities(task) -> None:
    wanted = {m for group in task.inputs for m in group}
    assert wanted <= ({*MODALITIES} if task.dimension == 3 else {"projection"})
    assert {m for m, _ in task.flags} - {"adc"} <= wanted  # a container may be given more than it needs


def test_body_tasks_estimate_targets_of_the_registry() -> None:
    assert all(target.name in TARGETS for t in TASKS.values() if t.suite == "body" for target in t.targets)


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="fomo25-infarct"):
        get_task("fomo25-infarkt")
