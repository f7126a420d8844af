# The 4,500 validation images of NoCaps (Agrawal et al. 2019), scored overall and by domain: 648
# images are in-domain, 2,938 near-domain and 914 out-of-domain. PCM-Net keeps the concepts of its
# config.
root = "data/nocaps"
captions = "data/nocaps/nocaps_val_4500_captions.json"

evaluation = dict(
    store="{root}/{features}/val_store",
    images="{root}/images",
    # The file has no splits: all of it is validation.
    split="",
    groups=captions,
    # ViECap's scripts/eval_nocaps.sh: VinVL's entities above 0.2.
    entities="data/vinvl/vgcocooiobjects_v1_class2ind.json",
    modules={
        "pcm_plugin.EntityPrompt": dict(
            concepts="data/vinvl/{features}/concepts.safetensors",
            concept_threshold=0.2,
            caption_entities=None,  # used in training only
        ),
    },
)
