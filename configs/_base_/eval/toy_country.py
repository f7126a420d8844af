# Test split of the toy world's country, for captioners of its town.
_base_ = "./parts/cross_domain.py"

root = "data/toy/country"

evaluation = dict(
    store="{root}/{features}/test_store",
    images="{root}/images",
    modules={
        "pcm_plugin.EntityPrompt": dict(concepts="{root}/{features}/concepts.safetensors"),
        **_base_.cross_domain,
    },
)
