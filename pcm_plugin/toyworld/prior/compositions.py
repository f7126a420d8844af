"""Four tasks of GenEval (Ghosh et al., NeurIPS 2023) in the vocabulary of the toy world."""

from dataclasses import dataclass
from random import Random

from torch import Tensor

from pcm_plugin.toyworld.prior.judge import Verdict
from pcm_plugin.toyworld.scene import OUTDOORS, Scene, Thing
from pcm_plugin.toyworld.things import KINDS

_NAMES = list(KINDS)


@dataclass(frozen=True)
class Task:
    """A prompt, what its image must show, and a scene that shows it.

    Attributes:
        prompt: The prompt.
        things: One or two things. A color that the prompt does not mention is not judged.
        judges_colors: Whether their colors must be right.
        judges_position: Whether the first must be to the left of the second.
        scene: Scene that shows it, for a real picture.
    """

    prompt: str
    things: tuple[Thing, ...]
    judges_colors: bool
    judges_position: bool
    scene: Scene


def _article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _sample(
    kinds: list[str], count: int, prompt: str, colors: bool, position: bool, rng: Random
) -> Task:
    things = tuple(Thing(kind, rng.choice(KINDS[kind].colors)) for kind in rng.sample(kinds, count))
    phrases = [
        _article(f"{thing.color} {thing.kind}" if colors else thing.kind) for thing in things
    ]
    relation = None if count == 1 else "left of" if position else "next to"
    scene = Scene(rng.choice(OUTDOORS), things, relation)
    return Task(prompt.format(*phrases), things, colors, position, scene)


def build_tasks(count: int, seed: int = 0) -> dict[str, list[Task]]:
    """Return ``count`` prompts of each task of GenEval that names objects, colors or positions.

    Colored things are those whose color captions mention; people are excluded, whose color is that
    of their clothes.
    """
    rng = Random(f"compositions/{seed}")
    colored = [name for name, kind in KINDS.items() if not kind.natural and kind.group != "person"]

    def sample(
        kinds: list[str], things: int, prompt: str, colors: bool = False, position: bool = False
    ) -> list[Task]:
        return [_sample(kinds, things, prompt, colors, position, rng) for _ in range(count)]

    return {
        "two objects": sample(_NAMES, 2, "a photo of {} and {}"),
        "color": sample(colored, 1, "a photo of {}", colors=True),
        "position": sample(_NAMES, 2, "a photo of {} to the left of {}", position=True),
        "colors of two objects": sample(colored, 2, "a photo of {} and {}", colors=True),
    }


def share_right(tasks: list[Task], verdict: Verdict, threshold: float) -> float:
    """Return the share of the images that show what their prompts describe.

    Args:
        tasks: One task per image.
        verdict: What the judge finds in the images.
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
    places = [_NAMES.index(thing.kind) for thing in task.things]
    if any(kinds[i] <= threshold for i in places):
        return False
    if task.judges_colors and any(colors[t.kind] != t.color for t in task.things):
        return False
    return not task.judges_position or bool(columns[places[0]] < columns[places[1]])
