"""Modules of this package are available in another MM project with its own scope."""

import re
import subprocess
import sys
from pathlib import Path

from mmengine.registry import Registry

import pcm_plugin
from pcm_plugin import registry

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


# Registered by a config that imports its module, since mmpretrain's models need other versions.
BY_CUSTOM_IMPORT = "blip.py"


def registered_names():
    """Return the names that the modules of the package register, by registry."""
    names = {}
    for path in Path(pcm_plugin.__file__).parent.rglob("*.py"):
        if path.name != BY_CUSTOM_IMPORT:
            pattern = r"^@([A-Z_]+)\.register_module\(\)\n(?:class|def) (\w+)"
            for root, name in re.findall(pattern, path.read_text(), re.MULTILINE):
                names.setdefault(root, []).append(name)
    return names


def test_mmengines_registries_find_everything_by_prefix():
    names = registered_names()
    registries = {n for n, value in vars(registry).items() if isinstance(value, Registry)}
    assert set(names) <= registries
    assert "CaptionInferencer" in names["INFERENCERS"]
    code = (
        "from mmengine import registry\n"
        f"for root, names in {names}.items():\n"
        "    for name in names:\n"
        "        assert getattr(registry, root).get(f'pcm_plugin.{name}'), name\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


IN_SCOPE = """
from mmengine import registry
from mmengine.registry import DefaultScope, Registry
from mmengine.visualization import Visualizer

DefaultScope.get_instance("here", scope_name="pcm_plugin")
visualizer = dict(type="Visualizer", name="here", vis_backends=[dict(type="LocalVisBackend")])
assert isinstance(registry.VISUALIZERS.build({**visualizer, "save_dir": %r}), Visualizer)
for root in vars(registry).values():
    if isinstance(root, Registry):
        with root.switch_scope_and_registry(None) as child:
            print(child.scope, child.name)
"""


def test_types_of_mmengine_are_built_in_the_scope_without_warnings(tmp_path):
    code = IN_SCOPE % str(tmp_path)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Failed to search registry" not in done.stdout + done.stderr
    assert "pcm_plugin visualizer" in done.stdout
    assert "mmengine " not in done.stdout
