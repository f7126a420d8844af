"""Record of a training: which settings make two trainings different."""

import pytest
from mmengine.config import Config

from pcm_plugin.engine.run_record import find_changes, find_changes_for_resume, record_run

AVERAGE = {"average": {"type": "EMAHook", "momentum": 0.01}}
EARLY = {"early_stopping": {"type": "EarlyStoppingHook", "patience": 3}}
OUTPUT = {"logger": {"type": "LoggerHook", "interval": 7}, "vocabulary": {"type": "Hook"}}


def record(hooks):
    return record_run(Config({"default_hooks": {"checkpoint": {"save_best": "a"}, **hooks}}))


@pytest.mark.parametrize("hooks", [AVERAGE, EARLY])
def test_hooks_that_change_the_weights_are_settings_of_a_run(hooks):
    (name,) = hooks
    changes = find_changes(record(hooks), record({name: None}))
    assert len(changes) == 2
    assert all(change.startswith(f"default_hooks.{name}.") for change in changes)
    assert find_changes(record({}), record(hooks))
    assert find_changes(record(hooks), record(hooks)) == []
    assert find_changes(record({}), record({name: None})) == []
    assert find_changes(record({}), record(OUTPUT)) == []


def test_a_run_is_not_resumed_with_another_average():
    other = {"average": {**AVERAGE["average"], "momentum": 0.5}}
    assert find_changes_for_resume(record(AVERAGE), record(other)) == [
        "default_hooks.average.momentum: 0.01 there, 0.5 here"
    ]
    assert find_changes_for_resume(record(AVERAGE), record({}))
    assert find_changes_for_resume(record({}), record(AVERAGE))
    # Early stopping decides the length of a run, which may change.
    assert find_changes_for_resume(record(EARLY), record({})) == []
