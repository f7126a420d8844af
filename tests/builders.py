"""Small but complete feature stores, CLIP models and pipelines for tests."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save

from pcm_plugin.formats.atomic_io import write_bytes
from pcm_plugin.formats.captions.record import Caption
from pcm_plugin.formats.clip_head import CLIP_HEAD
from pcm_plugin.formats.feature_shard import FORMAT, write_caption_shard, write_feature_shard
from pcm_plugin.formats.shards import Shard, ShardFolder


def build_store(
    path: Path,
    captions: list[list[str]],
    num_patches: int = 4,
    patch_dim: int = 6,
    clip_dim: int = 5,
    dtype: torch.dtype = torch.float16,
    shard_size: int = 2,
    seed: int = 0,
    feats: dict[str, torch.Tensor] | None = None,
    with_head: bool = True,
    ids: Sequence[str] | None = None,
    clip: str = "random",
) -> dict[str, torch.Tensor]:
    """Write a feature store of random features.

    Args:
        path: Folder to create.
        captions: The captions of each image.
        feats: ``patch_feats`` (n, N, Dv) and ``global_feats`` (n, Dc), random by default.
        with_head: Whether to write a CLIP head.
        ids: Ids of the images, which also name their files. Defaults to ``f'image{i}'`` and
            ``f'{i}.png'`` for image i.
        clip: Name of the CLIP to record.

    Returns:
        The float32 tensors that a reader of the store should return: ``patch_feats`` (n, N, Dv),
        ``global_feats`` (n, Dc), ``caption_feats`` (m, Dc), ``clip_scores`` (m,).
    """
    generator = torch.Generator().manual_seed(seed)
    n, m = len(captions), sum(map(len, captions))
    files = [f"{name}.png" for name in ids or range(n)]
    ids = ids or [f"image{i}" for i in range(n)]
    owner = torch.tensor([i for i, texts in enumerate(captions) for _ in texts], dtype=torch.int64)
    patch_feats = torch.randn(n, num_patches, patch_dim, generator=generator).to(dtype)
    global_feats = F.normalize(torch.randn(n, clip_dim, generator=generator), dim=1).to(dtype)
    if feats is not None:
        patch_feats = feats["patch_feats"].to(dtype)
        global_feats = feats["global_feats"].to(dtype)
    caption_feats = F.normalize(torch.randn(m, clip_dim, generator=generator), dim=1).to(dtype)
    clip_scores = 2.5 * (caption_feats.float() * global_feats.float()[owner]).sum(1)
    shards = -(-n // shard_size)
    plan = [
        Shard(f"shard-{s:05d}", min(shard_size, n - s * shard_size), f"{seed}")
        for s in range(shards)
    ]
    folder = ShardFolder.open_for_write(path, FORMAT, {"model": clip, "seed": seed}, plan)
    for s in range(shards):
        images = range(s * shard_size, min(n, (s + 1) * shard_size))
        mine = (owner >= images.start) & (owner < images.stop)
        write_feature_shard(
            folder,
            plan[s],
            [{"image_id": ids[i], "captions": captions[i], "file_name": files[i]} for i in images],
            patch_feats[images.start : images.stop],
            global_feats[images.start : images.stop],
            caption_feats[mine],
            clip_scores[mine],
        )
    if with_head:
        write_bytes(path / CLIP_HEAD, save(_random_head(patch_dim, clip_dim, generator)))
    return {
        "patch_feats": patch_feats.float(),
        "global_feats": global_feats.float(),
        "caption_feats": caption_feats.float(),
        "clip_scores": clip_scores,
    }


def build_caption_store(path: Path, captions: list[str], clip_dim: int = 5) -> torch.Tensor:
    """Write a feature store of random features of captions alone, and return them.

    Args:
        path: Folder to create.
        captions: The captions, with the ids ``caption0``, ``caption1``, ...
        clip_dim: Width Dc of the features.

    Returns:
        (n, Dc) float32.
    """
    generator = torch.Generator().manual_seed(0)
    feats = F.normalize(torch.randn(len(captions), clip_dim, generator=generator), dim=1).half()
    rows = [Caption(f"caption{i}", f"caption{i}", text) for i, text in enumerate(captions)]
    chunks = [range(start, min(start + 2, len(rows))) for start in range(0, len(rows), 2)]
    plan = [Shard(f"shard-{s:05d}", len(chunk), "0") for s, chunk in enumerate(chunks)]
    settings = {"model": "random", "images": False}
    folder = ShardFolder.open_for_write(path, FORMAT, settings, plan)
    for shard, chunk in zip(plan, chunks, strict=True):
        write_caption_shard(
            folder, shard, rows[chunk.start : chunk.stop], feats[chunk.start : chunk.stop]
        )
    return feats.float()


def _random_head(
    patch_dim: int, clip_dim: int, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    return {
        "ln_post.weight": 1 + 0.1 * torch.randn(patch_dim, generator=generator),
        "ln_post.bias": 0.1 * torch.randn(patch_dim, generator=generator),
        "proj": torch.randn(patch_dim, clip_dim, generator=generator),
    }


WORDS = [
    *("a", "photo", "of", "the", "in", "on", "under", "next", "to", "runs", "stands"),
    *("dog", "cat", "car", "tree", "house", "red", "green", "blue"),
]


def build_tokenizer(words: Sequence[str] = WORDS, max_len: int = 12) -> Any:
    """Build a word-level tokenizer with start and end tokens; the end token has the highest id."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.normalizers import Lowercase
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    vocabulary = {w: i for i, w in enumerate(["<pad>", "<unk>", "<start>", *words, "<end>"])}
    tokenizer = Tokenizer(WordLevel(vocabulary, "<unk>"))
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="<start> $A <end>",
        special_tokens=[(token, vocabulary[token]) for token in ("<start>", "<end>")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_len,
        bos_token="<start>",
        eos_token="<end>",
        pad_token="<pad>",
        unk_token="<unk>",
    )


def save_gpt2_config(path: Path, tokenizer: Any, initializer_range: float = 0.4) -> Path:
    """Save the config of a GPT-2 of width 12 with a tokenizer, without weights.

    Args:
        path: Folder to create.
        tokenizer: Tokenizer of transformers.
        initializer_range: Standard deviation of random weights. Large ones make predictions
            distinct.
    """
    from transformers import GPT2Config

    tokenizer.save_pretrained(path)
    GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=64,
        n_embd=12,
        n_layer=2,
        n_head=2,
        initializer_range=initializer_range,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    ).save_pretrained(path)
    return path


def build_sentence_encoder(path: Path, pooling: str | None = "mean_tokens", **config: Any) -> Path:
    """Save a random BERT of a few thousand weights in sentence-transformers format.

    Args:
        path: Folder to create.
        pooling: The pooling's key after ``pooling_mode_``; None for a plain transformers folder.
        **config: Further values of ``sentence_bert_config.json``.
    """
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    bert = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
    )
    model = BertModel(bert, add_pooling_layer=False)
    for weights in model.parameters():
        if (
            weights.dim() > 1
        ):  # the default initialization gives nearly equal features for all sentences
            weights.data = torch.randn_like(weights)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    if pooling is not None:
        kinds = ("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")
        modules = [{"type": f"sentence_transformers.models.{k}", "path": p} for k, p in kinds]
        (path / "modules.json").write_text(json.dumps(modules))
        (path / "sentence_bert_config.json").write_text(json.dumps(config))
        (path / "1_Pooling").mkdir()
        modes = {f"pooling_mode_{pooling}": True, "word_embedding_dimension": 8}
        (path / "1_Pooling" / "config.json").write_text(json.dumps(modes))
    return path


def build_clip(
    path: Path, image_size: int = 16, seed: int = 0, kind: str = "plain", **vision: Any
) -> str:
    """Save a random CLIP of a few thousand weights as an open_clip folder.

    Args:
        path: Folder to create.
        image_size: Height and width of the images; patches have 4 x 4 pixels.
        kind: ``"plain"`` for a Vision Transformer of open_clip; ``"eva"`` or ``"siglip"`` for a
            timm tower for images of 16 pixels, with the matching text settings.
        **vision: Further entries of ``vision_cfg``, e.g. ``pool_type="avg"``.

    Returns:
        The model name for open_clip: ``local-dir:`` and the folder.
    """
    import open_clip
    from safetensors.torch import save_file

    path.mkdir(parents=True)
    tokenizer = build_tokenizer()
    tower = {"patch_size": 4, "width": 16, "head_width": 8, "layers": 2}
    if kind != "plain":
        from tests.towers import KINDS

        tower = KINDS[kind]
    model_cfg = {
        # SigLIP has no projection: the joint space has the width of the tower.
        "embed_dim": 16 if kind == "siglip" else 8,
        "vision_cfg": {"image_size": image_size, **tower, **vision},
        "text_cfg": {
            "context_length": tokenizer.model_max_length,
            "vocab_size": len(tokenizer),
            "width": 16,
            "heads": 2,
            "layers": 1,
            "hf_tokenizer_name": "local",
            "tokenizer_kwargs": {"local_files_only": True},
        },
    }
    if kind == "siglip":
        model_cfg["init_logit_bias"] = -10
        model_cfg["text_cfg"] |= {"no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
    build = open_clip.CLIP if kind == "plain" else open_clip.CustomTextCLIP
    torch.manual_seed(seed)
    weights = build(**model_cfg).state_dict()
    if kind != "plain":
        model_cfg["custom_text"] = True
        # Default biases are 0 and heads nearly so, which would hide a missing one.
        weights = {
            key: value + 0.2 * torch.randn(value.shape) if key.startswith("visual") else value
            for key, value in weights.items()
        }
    save_file(weights, path / "open_clip_model.safetensors")
    preprocess = {"size": image_size, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    config = {"model_cfg": model_cfg, "preprocess_cfg": preprocess}
    (path / "open_clip_config.json").write_text(json.dumps(config))
    tokenizer.save_pretrained(path)
    return f"local-dir:{path}"


def build_pipeline(path: Path, seed: int = 0, kind: str = "sd") -> Path:
    """Save a random text-to-image pipeline for 16 x 16 pixels in diffusers format.

    Args:
        path: Folder to create.
        kind: ``"sd"``, Stable Diffusion 1.x; ``"xl"`` and ``"turbo"``, Stable Diffusion XL and its
            distilled version; ``"lcm"``, a latent consistency model; ``"checked"``,
            Stable Diffusion with a safety checker that flags every image.
    """
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=8,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    large = kind in ("xl", "turbo")
    conditions: dict[str, Any] = {"cross_attention_dim": 8}
    if large:  # tokens of both text encoders, and the pooled second one with six image sizes
        conditions = {
            "cross_attention_dim": 16,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 8 + 6 * 8,
        }
    elif kind == "lcm":  # guidance is an input instead of a second forward pass
        conditions["time_cond_proj_dim"] = 8
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        **conditions,
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
    )
    parts = dict(vae=vae, text_encoder=CLIPTextModel(text), tokenizer=tokenizer, unet=unet)
    unchecked = dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipeline: Any
    if large:
        scheduler = (
            diffusers.EulerAncestralDiscreteScheduler(timestep_spacing="trailing")
            if kind == "turbo"
            else diffusers.EulerDiscreteScheduler()
        )
        pipeline = diffusers.StableDiffusionXLPipeline(
            **parts,
            text_encoder_2=CLIPTextModelWithProjection(text),
            tokenizer_2=tokenizer,
            scheduler=scheduler,
            add_watermarker=False,
        )
    elif kind == "lcm":
        pipeline = diffusers.LatentConsistencyModelPipeline(
            **parts, scheduler=diffusers.LCMScheduler(), **unchecked
        )
    else:
        pipeline = diffusers.StableDiffusionPipeline(
            **parts,
            scheduler=diffusers.DDIMScheduler(clip_sample=False, steps_offset=1),
            **(_flagging_checker() if kind == "checked" else unchecked),
        )
    pipeline.save_pretrained(path, safe_serialization=True)
    return path


def _flagging_checker() -> dict[str, Any]:
    """Build a tiny safety checker of Stable Diffusion with thresholds below any cosine."""
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    vision = dict(
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=8))
    checker.concept_embeds_weights.data.fill_(-1.5)
    size = {"height": 16, "width": 16}
    return dict(
        safety_checker=checker,
        feature_extractor=CLIPImageProcessor(size=size, crop_size=size),
    )
