#!/usr/bin/env bash
# Install the wheel into environments that have MMEngine, MMPretrain and MMCV already, and compare
# their files before and after:
#   [PYTHON=python3.11] [CONSTRAINTS=FILE] tools/dev/check_existing_environment.sh [FOLDER]
# FOLDER gets the environment (see wheel_environment.sh); without it, nothing is kept.
set -euo pipefail
. "$(dirname -- "$0")/wheel_environment.sh"
# The dependencies other than the MM packages, which each environment below brings itself.
"${pip[@]}" install --quiet -c "$constraints" "$wheel"
cd "$folder"

remove() {
    "${pip[@]}" uninstall --quiet -y pcm-plugin mmengine mmcv mmcv-lite mmpretrain \
        onedl-mmengine onedl-mmcv onedl-mmpretrain 2>/dev/null
    rm -rf "$venv"/lib/python*/site-packages/{mmengine,mmcv,mmpretrain}
}

# Print a hash of each file of the MM packages.
hashes() {
    (
        cd "$venv"/lib/python*/site-packages
        shopt -s nullglob
        find mmengine mmcv mmpretrain ./*mm{engine,cv,cv_lite,pretrain}-*.dist-info \
            -type f -not -name '*.pyc' -print0 | sort -z | xargs -0 sha256sum
    )
}

# check EXTRAS PACKAGE...: install the packages, then the wheel with these extras.
check() {
    local extras=$1
    shift
    remove
    # Some packages are built from source, and need pkg_resources for it.
    PIP_CONSTRAINT=$folder/build.txt "${pip[@]}" install --quiet -c "$constraints" "$@"
    hashes > "$folder/before"
    "${pip[@]}" install --quiet -c "$constraints" "$wheel$extras"
    hashes > "$folder/after"
    if ! diff "$folder/before" "$folder/after" > "$folder/diff"; then
        echo "$(versions): installing pcm-plugin$extras changed these files:" >&2
        head -20 "$folder/diff" >&2
        exit 1
    fi
    "$venv/bin/python" -W ignore - <<'CODE'
from mmengine.registry import MODELS

sizes = dict(patch_dim=8, clip_dim=6, embed_dims=16, num_patches=4, num_pairs=2)
MODELS.build(dict(type="pcm_plugin.PCMMixup", **sizes))
CODE
    echo "$(versions): pcm-plugin$extras changed none of $(wc -l < "$folder/before") files"
}

# Print the installed MM packages with their versions.
versions() {
    "${pip[@]}" list --format=freeze 2>/dev/null | grep -E '^(onedl-)?mm(engine|cv|pretrain)' |
        tr '\n' ' '
}

echo "setuptools<81" > "$folder/build.txt"
check "" mmengine mmpretrain mmcv-lite "setuptools<81"
check "[mm]" mmengine mmpretrain mmcv "setuptools<81"
check "" onedl-mmengine onedl-mmpretrain onedl-mmcv
check "[onedl]" onedl-mmengine onedl-mmpretrain onedl-mmcv

# The comparison finds what a requirement of mmengine would do.
"${pip[@]}" install --quiet -c "$constraints" mmengine
hashes > "$folder/after"
if diff -q "$folder/before" "$folder/after" > /dev/null; then
    echo "mmengine over onedl-mmengine changed no files, so this check is without effect" >&2
    exit 1
fi
remove
