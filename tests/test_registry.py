"""Our modules from a foreign MM project: by prefix, and by ``custom_imports``."""

import subprocess
import sys

FOREIGN = """
import sys
from mmengine.config import Config
from mmengine.model import BaseModule
from mmengine.registry import MODELS as ROOT, DefaultScope, Registry

MODELS = Registry("model", parent=ROOT, scope="foreign")

@MODELS.register_module()
class Captioner(BaseModule):
    def __init__(self, neck):
        super().__init__()
        self.neck = MODELS.build(neck)

DefaultScope.get_instance("here", scope_name="foreign")
assert not any(name.startswith("pcm_plugin") for name in sys.modules)
neck = dict(type=%r, patch_dim=8, clip_dim=6, embed_dims=16, num_patches=4)
cfg = Config(dict(model=dict(type="Captioner", neck=neck)))
if %r:
    Config.fromfile(%r)
    assert "pcm_plugin.models.necks" in sys.modules
model = MODELS.build(cfg.model)
print(type(model.neck).__module__)
"""


def build(kind: str, imports: bool, config: str) -> subprocess.CompletedProcess:
    code = FOREIGN % (kind, imports, config)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_by_prefix_nothing_has_to_be_imported():
    done = build("pcm_plugin.PCMMixup", False, "")
    assert done.stdout.split()[-1:] == ["pcm_plugin.models.necks.pcm_mixup"], done.stderr


def test_by_custom_imports(tmp_path):
    config = tmp_path / "config.py"
    config.write_text('custom_imports = dict(imports=["pcm_plugin.models"])\n')
    done = build("pcm_plugin.PCMMixup", True, str(config))
    assert done.stdout.split()[-1:] == ["pcm_plugin.models.necks.pcm_mixup"], done.stderr


def test_without_the_prefix_it_is_not_found():
    done = build("PCMMixup", False, "")
    assert done.returncode
    assert "PCMMixup is not in the" in done.stderr
