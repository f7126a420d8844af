# Test split of COCO (Karpathy), for captioners that were trained on other captions.
_base_ = ["../datasets/coco.py", "./parts/cross_domain.py"]

evaluation = dict(
    store="{root}/{features}/test_store",
    images="{root}/images",
    # ViECap's README and scripts/eval_coco.sh: COCO's 80 categories above 0.2, greedy search.
    entities=__import__("os").path.relpath("{{ fileDirname }}/../../words/coco_categories.txt"),
    modules={
        "pcm_plugin.EntityPrompt": dict(
            concepts="{root}/{features}/categories.safetensors",
            concept_threshold=0.2,
            caption_entities=None,  # used in training only
        ),
        "pcm_plugin.PrefixCaptioner": dict(decoding=dict(beam_size=1)),
        **_base_.cross_domain,
    },
)
