import json

import open_clip
import pytest
import torch
from safetensors.torch import save_file

TOY_CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="session")
def make_clip(tmp_path_factory):
    """Write a small random CLIP in open_clip's folder format; returns its name."""

    def make(**vision):
        config = json.loads(json.dumps(TOY_CLIP))
        config["vision_cfg"].update(vision)
        folder = tmp_path_factory.mktemp("clip")
        torch.manual_seed(0)
        model = open_clip.CLIP(**json.loads(json.dumps(config)))
        for parameter in (*model.visual.ln_post.parameters(), *model.visual.ln_pre.parameters()):
            torch.nn.init.normal_(parameter)
        state = {key: value.contiguous() for key, value in model.state_dict().items()}
        save_file(state, folder / "open_clip_model.safetensors")
        (folder / "open_clip_config.json").write_text(
            json.dumps({"model_cfg": config, "preprocess_cfg": {}})
        )
        return f"local-dir:{folder}"

    return make
