"""Export a trained captioner to a single file.

pcm export configs/pcm_coco.py work_dirs/pcm_coco/best_*.pth --out captioner.safetensors

The file contains weights, settings, vocabulary or tokenizer, concepts, and the name of the CLIP.
Use it with pcm caption captioner.safetensors IMAGES. A CLIP in a local folder is copied next to it.
"""

import argparse
from pathlib import Path

from pcm_plugin.commands.run_arguments import add_config_options
from pcm_plugin.errors import UserError, plain_errors


@plain_errors()
def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="config of the training")
    parser.add_argument("checkpoint", help=".pth of its run, or .safetensors of weights")
    parser.add_argument("--out", required=True, help="file to write, .safetensors")
    parser.add_argument("--half", action="store_true", help="store float16, which halves the size")
    parser.add_argument("--name", help="name to store in the file; default: that of the config")
    add_config_options(parser)
    args = parser.parse_args()
    import torch

    from pcm_plugin.commands.build_commands import check_inputs
    from pcm_plugin.commands.run_config import apply_cfg_options
    from pcm_plugin.engine.checkpoints import load_weights
    from pcm_plugin.engine.config_files import read_config_file
    from pcm_plugin.engine.inputs import drop_clip_head
    from pcm_plugin.models.captioner_file import save_captioner
    from pcm_plugin.models.captioners import PCMNet
    from pcm_plugin.models.captioners.config_check import assert_is_captioner
    from pcm_plugin.models.decoding.config import WITHOUT_RERANKING
    from pcm_plugin.registry import MODELS

    cfg = read_config_file(args.config)
    apply_cfg_options(cfg, args.cfg_options)
    if cfg.get("clip") is None:
        raise UserError(f"{args.config} names no CLIP: clip=dict(model_name=..., pretrained=...)")
    assert_is_captioner(cfg.model)
    drop_clip_head(cfg)
    check_inputs(cfg, ())
    settings = cfg.model.to_dict()
    # The CLIP is not needed to write its name.
    decoding = {**(settings.get("decoding") or {}), **WITHOUT_RERANKING}
    model = MODELS.build({**settings, "backbone": None, "decoding": decoding})
    # The file stores the settings of the config, which the model was built without.
    model.check_decoding(model.default_decoding.updated(settings.get("decoding") or {}))
    load_weights(model, args.checkpoint, cfg)
    about = {"name": args.name or Path(cfg.filename).stem, "torch": torch.__version__}
    save_captioner(args.out, model, settings, cfg.clip, about, args.half)
    size = Path(args.out).stat().st_size / 2**20
    if isinstance(model, PCMNet):
        words, unit = len(model.vocabulary) - 1, model.vocabulary.unit
    else:
        words, unit = len(model.tokenizer), "tokens"
    print(f"{args.out}: {size:.1f} MiB, {words:,} {unit}, CLIP {cfg.clip.model_name}")
