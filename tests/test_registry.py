"""Modules of this package are available in another MM project with its own scope."""

import subprocess
import sys

FOREIGN = """
import sys
import torch
from mmengine.config import Config
from mmengine.model import BaseModule
from mmengine.registry import MODELS as ROOT, DefaultScope, Registry

MODELS = Registry("model", parent=ROOT, scope="foreign")

@MODELS.register_module()
class Captioner(BaseModule):
    def __init__(self, neck):
        super().__init__()
        self.neck = MODELS.build(neck)
        self.head = torch.nn.Linear(self.neck.embed_dims, 3)

    def forward(self, patch_feats, global_feats):
        out = self.neck(patch_feats, global_feats)
        return self.head(out.tokens * out.mask.unsqueeze(-1)).sum(1)

DefaultScope.get_instance("here", scope_name="foreign")
assert not any(name.startswith("pcm_plugin") for name in sys.modules)
neck = dict(type=%r, patch_dim=8, clip_dim=6, embed_dims=16, num_patches=4, num_pairs=2)
cfg = Config(dict(model=dict(type="Captioner", neck=neck)))
if %r:
    Config.fromfile(%r)
    assert "pcm_plugin.models.necks" in sys.modules
model = MODELS.build(cfg.model)
model.neck.set_concepts(list("abcdefg"), torch.randn(7, 6))
head = {"ln_post.weight": torch.ones(8), "ln_post.bias": torch.zeros(8)}
model.neck.set_clip_head({**head, "proj": torch.randn(8, 6)})
model.train()(torch.randn(2, 4, 8), torch.randn(2, 6)).sum().backward()
assert all(p.grad is not None for p in model.parameters())
assert model.eval()(torch.randn(2, 4, 8), torch.randn(2, 6)).shape == (2, 3)
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
