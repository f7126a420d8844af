"""Four tasks of GenEval (Ghosh et al., NeurIPS 2023) in the vocabulary of the toy world."""

from dataclasses import dataclass
from random import Random

from torch import Tensor

from pcm_plugin.toyworld.captions import with_article
from pcm_plugin.toyworld.prior.judge import Verdict
from pcm_plugin.toyworld.scene import OUTDOORS, Scene, Thing
from pcm_plugin.toyworld.things import KINDS

_NAMES = list(KINDS)


@dataclass(frozen=True)
class Task:
    """A prompt, and a scene that shows it.

    Attributes:
        prompt: The prompt.
        scene: Scene of one or two things, whose rendered picture is right. The prompt does not name
            its place, nor the colors unless they are judged.
        judges_colors: Whether the colors of the things must be right.
        judges_position: Whether the first thing must be to the left of the second.
    """

    prompt: str
    scene: Scene
    judges_colors: bool = False
    judges_position: bool = False


def build_tasks(count: int, seed: int = 0) -> dict[str, list[Task]]:
    """Return prompts for the tasks of GenEval that name two objects, colors or positions.

    Tasks with colors name things whose colors captions mention, but not people, whose color is that
    of their clothes. The only position is to the left of something.

    Args:
        count: Number of prompts of each task.
        seed: Seed of the prompts. Defaults to 0.
    """
    rng = Random(f"compositions/{seed}")
    colored = [name for name, kind in KINDS.items() if not kind.natural and kind.group != "person"]

    def sample(template: str, things: int, colors: bool = False, position: bool = False) -> Task:
        names = rng.sample(colored if colors else _NAMES, things)
        shown = tuple(Thing(name, rng.choice(KINDS[name].colors)) for name in names)
        phrases = [f"{thing.color} {thing.kind}" if colors else thing.kind for thing in shown]
        scene = Scene(rng.choice(OUTDOORS), shown, "left of" if position else None)
        return Task(template.format(*map(with_article, phrases)), scene, colors, position)

    pair = "a photo of {} and {}"
    return {
        "two objects": [sample(pair, 2) for _ in range(count)],
        "color": [sample("a photo of {}", 1, colors=True) for _ in range(count)],
        "position": [
            sample("a photo of {} to the left of {}", 2, position=True) for _ in range(count)
        ],
        "colors of two objects": [sample(pair, 2, colors=True) for _ in range(count)],
    }


def share_right(tasks: list[Task], verdict: Verdict, threshold: float) -> float:
    """Return the share of the images that show what their prompts describe, from 0 to 1.

    Args:
        tasks: One task per image.
        verdict: Judgment of the images.
        threshold: Probability above which a kind counts as found.
    """
    found = zip(tasks, verdict.kinds, verdict.colors, verdict.columns, strict=True)
    hits = [
        _is_right(task, kinds, colors, columns, threshold) for task, kinds, colors, columns in found
    ]
    return sum(hits) / len(hits)


def _is_right(
    task: Task, kinds: Tensor, colors: dict[str, str], columns: Tensor, threshold: float
) -> bool:
    things = task.scene.things
    places = [_NAMES.index(thing.kind) for thing in things]
    if any(kinds[i] <= threshold for i in places):
        return False
    if task.judges_colors and any(colors[t.kind] != t.color for t in things):
        return False
    return not task.judges_position or bool(columns[places[0]] < columns[places[1]])
