# ViECap (Fei et al. 2023) with the settings of its released code, github.com/FeiElysia/ViECap.
# Comments name the file of that repository. Data sets add their entities and threshold.
_base_ = "./prefix_vitb32.py"

model = dict(
    # ClipCap.py, MappingNetwork: one Linear computes ten tokens from the feature, before the
    # Transformer.
    neck=dict(num_tokens=10, linear=True),
    mapper=dict(qkv_bias=False),
    # utils.py, CaptionsDataset.py and scripts/train_*.sh: prompts in training name 60 % of the
    # nouns of the caption, and every word for a person is replaced by "person".
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
    # load_annotations.py and search.py: captions start with a capital letter and end with a full
    # stop, which ends the generation; beams are ranked by their mean log-probability.
    full_sentences=True,
    decoding=dict(length_penalty=1.0, max_len=64),
)
