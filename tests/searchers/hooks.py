"""Results and ends of trials, as Tune gives them to a searcher's hooks."""

from __future__ import annotations


def result_of(text, value, *, done=4, target=4, **more):
    """A flat result as Tune makes it."""
    return {
        "reward": value,
        "epochs_done": done,
        "epochs_target": target,
        "training_iteration": done,
        "config/architecture": text,
        **more,
    }


def finish(searcher, trial_id, value, **more):
    """Suggests, reports the end, and returns the suggestion."""
    suggestion = searcher.suggest(trial_id)
    result = result_of(suggestion["architecture"], value, **more)
    searcher.on_trial_complete(trial_id=trial_id, result=result, error=False)
    return suggestion
