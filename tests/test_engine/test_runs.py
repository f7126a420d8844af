import json
import os

import pytest

from pcm_plugin.engine.runs import best_of, is_trained, note_trained


def test_the_best_checkpoint_is_the_one_saved_last(tmp_path):
    """A folder that was moved while it trained keeps the best one from before."""
    assert not is_trained(tmp_path, "a name")
    with pytest.raises(FileNotFoundError, match="holds no best checkpoint"):
        note_trained(tmp_path)
    for seconds, epoch in ((1, 9), (2, 12)):
        file = tmp_path / f"best_caption_CIDEr_epoch_{epoch}.pth"
        file.touch()
        os.utime(file, (seconds, seconds))
    note_trained(tmp_path)
    assert best_of(tmp_path) == str(file)
    assert is_trained(tmp_path, "a name")
    assert json.loads((tmp_path / "run.json").read_text())["best"] == file.name
