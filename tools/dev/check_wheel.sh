#!/usr/bin/env bash
# Build the wheel, install it into a new environment, and use it from an empty folder:
#   [PYTHON=python3.11] [CONSTRAINTS=constraints/default.txt] tools/dev/check_wheel.sh [FOLDER]
# FOLDER gets the environment and the runs (see wheel_environment.sh); without it, nothing is kept.
set -euo pipefail

step() {
    echo
    echo "== $*"
}

step "build and install"
. "$(dirname -- "$0")/wheel_environment.sh"
rm -rf "$folder/empty"
"${pip[@]}" install --quiet -c "$constraints" "${wheel}[mm,mmcv-lite]" openmim
# The wheel of an earlier run may have the same version.
"${pip[@]}" install --quiet --no-deps --force-reinstall "$wheel"

mkdir "$folder/empty"
cd "$folder/empty"
export PATH=$venv/bin:$PATH OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} PYTHONWARNINGS=ignore
python - "$root" <<'CODE'
import sys
from pathlib import Path

import pcm_plugin

assert not Path(pcm_plugin.__file__).is_relative_to(sys.argv[1]), pcm_plugin.__file__
CODE

step "pcm --help, pcm doctor"
pcm --help | grep make-dataset
pcm doctor

step "mim search, mim download"
mim search pcm_plugin | grep -o "pcm-net_toy"
mim search pcm_plugin --valid-config | grep -o "'pcm_coco'"
mim download pcm_plugin --config pcm_coco --dest downloaded
grep -q "pcm_plugin.PCMNet" downloaded/pcm_coco.py

step "pcm caption, with the packaged captioner"
python - <<'CODE'
from pcm_plugin.commands.toyworld.steps import QUICK_SIZES, make_data

make_data(1, QUICK_SIZES)
CODE
image=$(find data/toy/town/images -type f | sort | head -1)
pcm caption pcm-net_toy "$image"

step "mim train, mim test"
mim train pcm_plugin pcm_toy.py --work-dir work_dirs/mim --cfg-options train_cfg.max_epochs=1
mim test pcm_plugin pcm_toy.py --checkpoint work_dirs/mim/epoch_1.pth --work-dir work_dirs/test
test -f work_dirs/test/metrics.json

step "a config of another project, trained by pcm and by mmpretrain's own program"
cat > mine.py <<'CONFIG'
_base_ = __import__("pcm_plugin").config_file("pcm_toy.py")

custom_imports = dict(imports=["my_hooks"])
default_hooks = dict(mine=dict(type="MyHook"))
train_cfg = dict(max_epochs=1)
CONFIG
cat > my_hooks.py <<'CODE'
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class MyHook(Hook):
    def after_train(self, runner):
        print("MyHook ran")
CODE
export PYTHONPATH=.
pcm train mine.py --work-dir work_dirs/mine | grep "MyHook ran"
mim train mmpretrain mine.py --work-dir work_dirs/mmpretrain | grep "MyHook ran"
unset PYTHONPATH

step "modules by prefix under another default scope, and by custom_imports"
python - "$image" <<'CODE'
import sys

from mmengine.config import Config
from mmengine.registry import INFERENCERS, MODELS, DefaultScope

DefaultScope.get_instance("foreign", scope_name="mmpretrain")
sizes = dict(patch_dim=8, clip_dim=6, embed_dims=16, num_patches=4, num_pairs=2)
neck = MODELS.build(dict(type="pcm_plugin.PCMMixup", **sizes))
print(type(neck).__module__)
with open("imports.py", "w") as file:
    file.write("custom_imports = dict(imports=['pcm_plugin.models'])\n")
Config.fromfile("imports.py")
build = dict(type="pcm_plugin.CaptionInferencer", model="pcm-net_toy", show_progress=False)
print(INFERENCERS.build(build)(sys.argv[1])["predictions"][0]["caption"])
CODE

step "mmpretrain.inference_model"
python - "$image" <<'CODE'
import sys

from mmpretrain import inference_model, list_models

from pcm_plugin.apis import register_models

register_models()
assert "pcm-net_toy" in list_models(task="Image Caption")
print(inference_model("pcm-net_toy", sys.argv[1])["pred_caption"])
CODE

echo
echo "all checks passed"
