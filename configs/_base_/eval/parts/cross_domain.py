# Captioners with concepts take those of the target, the data set that is captioned.
cross_domain = {
    module: dict(concepts="{root}/{features}/concepts.safetensors")
    for module in (
        "pcm_plugin.PCMMixup",
        "pcm_plugin.ObjectPrefix",
        "pcm_plugin.MixupVisionEncoder",
    )
}
