"""Early stopping: when a run stops, also after it was resumed."""

import itertools
import math
from types import SimpleNamespace

import pytest
from mmengine.logging import MessageHub

from pcm_plugin.engine import ResumableEarlyStoppingHook

COUNT = itertools.count()


def new_hook(patience=2):
    return ResumableEarlyStoppingHook(
        monitor="caption/CIDEr", rule="greater", min_delta=0.0, patience=patience
    )


def new_runner(hub=None):
    hub = hub or MessageHub.get_instance(f"early stopping {next(COUNT)}")
    logger = SimpleNamespace(info=lambda text: None)
    return SimpleNamespace(
        train_loop=SimpleNamespace(stop_training=False), message_hub=hub, logger=logger
    )


def validate(hook, runner, scores):
    """Return the number of validations until the run stops; None if it goes on."""
    for count, score in enumerate(scores, start=1):
        hook.after_val_epoch(runner, {"caption/CIDEr": score})
        if runner.train_loop.stop_training:
            return count
    return None


@pytest.mark.parametrize(
    ("scores", "patience", "stop"),
    [
        ([1, 2, 3, 4], 1, None),
        ([3, 2, 1], 2, 3),
        ([3, 2, 4, 3, 3, 5], 2, 5),
        ([3, 2, 4, 3, 3, 5], 3, None),
        ([3, 3, 3], 2, 3),
        ([math.nan, 1, 2], 2, None),
        ([1, math.nan, math.nan, 2], 2, 3),
        ([math.nan, math.nan, math.nan], 3, 3),
    ],
)
def test_it_stops_after_as_many_validations_without_a_better_score(scores, patience, stop):
    hook, runner = new_hook(patience), new_runner()
    hook.before_train(runner)
    assert validate(hook, runner, scores) == stop
    # Interrupted after any validation, the run stops at the same one.
    for done in range(1, len(scores) if stop is None else stop):
        first, runner = new_hook(patience), new_runner()
        first.before_train(runner)
        assert validate(first, runner, scores[:done]) is None
        state = runner.message_hub.state_dict()
        hub = MessageHub.get_instance(f"early stopping {next(COUNT)}")
        hub.load_state_dict(state)
        second, resumed = new_hook(patience), new_runner(hub)
        second.before_train(resumed)
        rest = validate(second, resumed, scores[done:])
        assert (rest and done + rest) == stop
