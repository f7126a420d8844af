# ViECap (Fei et al. 2023) with the settings of its released code, github.com/FeiElysia/ViECap; the
# file of that repository stands behind each setting. Data sets add their entities and threshold.
_base_ = "./prefix_vitb32.py"

model = dict(
    # MappingNetwork, ClipCap.py: ten tokens of the feature by one Linear, then the Transformer.
    neck=dict(num_tokens=10, linear=True),
    mapper=dict(qkv_bias=False),
    # utils.py, CaptionsDataset.py and scripts/train_*.sh: the prompts of training name the nouns of
    # the caption, 60 % of them, and every person is a "person".
    entity_prompt=dict(
        entity_dropout=0.4,
        entity_aliases=dict.fromkeys(
            [
                *(
                    "people",
                    "person",
                    "man",
                    "men",
                    "woman",
                    "women",
                    "adult",
                    "boy",
                    "girl",
                    "kid",
                ),
                *("children", "child", "baby", "guy", "player", "male", "female", "worker"),
            ],
            "person",
        ),
    ),
    # load_annotations.py and search.py: captions begin with a capital and end with a full stop, at
    # which generation stops; beams are kept by their mean log-probability.
    full_sentences=True,
    decoding=dict(length_penalty=1.0, max_len=64),
)
