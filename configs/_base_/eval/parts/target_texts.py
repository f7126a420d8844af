# What each captioner takes from the training captions of the target, the data set that is
# captioned, without training on them and without its images: PCM-Net takes their frequent nouns as
# concepts, DeCap and SynTIC project the features of images onto them. These concepts have a file of
# their own, since the usual file may contain the released list.
target_texts = {
    "pcm_plugin.PCMMixup": dict(concepts="{root}/{features}/concepts_of_captions.safetensors"),
    "pcm_plugin.GlobalPrefix": dict(text_memory="{root}/{features}/train_store"),
    "pcm_plugin.ObjectPrefix": dict(text_memory="{root}/{features}/train_store"),
}
