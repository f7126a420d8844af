# Test split of Flickr30k (Karpathy), for captioners that were trained on other captions.
_base_ = ["../datasets/flickr30k.py", "./parts/cross_domain.py"]

evaluation = dict(
    store="{root}/{features}/test_store",
    images="{root}/images",
    # ViECap's README and scripts/eval_flickr30k.sh: VinVL's entities above 0.2, greedy search.
    entities="data/vinvl/vgcocooiobjects_v1_class2ind.json",
    modules={
        "pcm_plugin.EntityPrompt": dict(
            concepts="data/vinvl/{features}/concepts.safetensors",
            concept_threshold=0.2,
            caption_entities=None,  # used in training only
        ),
        "pcm_plugin.PrefixCaptioner": dict(decoding=dict(beam_size=1)),
        **_base_.cross_domain,
    },
)
