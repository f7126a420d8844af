"""Atomically written checkpoints, and one best checkpoint per folder."""

import glob
import shutil
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from pcm_plugin.formats.atomic_io import atomic_write, write_bytes
from pcm_plugin.registry import HOOKS


@register_backend("pcm_plugin.atomic", force=True)
class AtomicLocalBackend(LocalBackend):
    """MMEngine's local files, written to a temporary file, synced and renamed."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write ``obj`` to ``filepath`` atomically."""
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, obj)


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's checkpoint hook with atomic writes through :class:`AtomicLocalBackend`.

    MMEngine writes checkpoints in place, and writes the newest one a second time if its validation
    is the best so far: a run that is killed at that moment cannot be resumed. It also stores the
    full path of the best checkpoint, so that a folder that was moved, or a run that is resumed in
    another folder, ends with two best checkpoints or none.

    With this hook a folder has exactly one checkpoint ``best_KEY_*`` per metric of ``save_best``
    after the first validation: a new one is written before the previous one is removed, and a run
    that is resumed in another folder copies its best checkpoint.

    Args:
        **kwargs: Arguments of :class:`mmengine.hooks.CheckpointHook` other than ``backend_args``.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(backend_args=dict(backend="pcm_plugin.atomic"), **kwargs)

    def before_train(self, runner: Runner) -> None:
        """Find the best checkpoint of a resumed run in the folder of this one."""
        super().before_train(runner)
        if self.save_best:
            for key, path in self._best_paths().items():
                self._set_best_path(key, self._copy_best(runner, key, path))
            self._remove_other_best()

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, Any]) -> None:
        if not self.save_best:
            return
        before = self._best_paths()
        for key in before:  # otherwise the base class removes the file before it writes the next
            self._set_best_path(key, None)
        super()._save_best_checkpoint(runner, metrics)
        # The order is the same, but the name of a single key may have been 'auto' before.
        for (key, path), old in zip(self._best_paths().items(), before.values(), strict=True):
            if path is None:
                self._set_best_path(key, old)
        self._remove_other_best()

    def _best_paths(self) -> dict[str, str | None]:
        if len(self.key_indicators) == 1:
            return {self.key_indicators[0]: self.best_ckpt_path}
        return dict(self.best_ckpt_path_dict)

    def _set_best_path(self, key: str, path: str | None) -> None:
        if len(self.key_indicators) == 1:
            self.best_ckpt_path = path
        else:
            self.best_ckpt_path_dict[key] = path

    def _copy_best(self, runner: Runner, key: str, recorded: str | None) -> str | None:
        """Return the path of the best checkpoint in this folder, and copy it there if needed."""
        suffix = "" if len(self.key_indicators) == 1 else f"_{key}"
        if recorded is None:
            return None
        path = Path(self.out_dir) / Path(recorded).name
        places = [Path(recorded)]
        if runner._load_from is not None:
            places.append(Path(runner._load_from).with_name(path.name))
        source = next((place for place in places if place.is_file()), None)
        if not path.is_file() and source is not None and is_main_process():
            with open(source, "rb") as old, atomic_write(path) as new:
                shutil.copyfileobj(old, new)
        if source is None and not path.is_file():
            runner.logger.warning(
                f"The best checkpoint so far, {path.name}, does not exist anymore: the best of the "
                "next validations will be kept."
            )
            runner.message_hub.runtime_info.pop(f"best_score{suffix}", None)
            runner.message_hub.runtime_info.pop(f"best_ckpt{suffix}", None)
            return None
        runner.message_hub.update_info(f"best_ckpt{suffix}", str(path))
        return str(path)

    def _remove_other_best(self) -> None:
        if not is_main_process():
            return
        for key, kept in self._best_paths().items():
            pattern = glob.escape(f"best_{key}_".replace("/", "_")) + self.filename_tmpl.format("*")
            for path in Path(self.out_dir).glob(pattern):
                if kept is None or path.name != Path(kept).name:
                    path.unlink()
