# pcm make-dataset CAPTIONS --recipe text_vitb32 --out data/mine
#
# Captions alone, encoded by the text encoder of OpenAI's CLIP ViT-B/32, for captioners that need no
# images in training: a prefix captioner (ViECap), CapDec and DeCap.
_base_ = "./sd15_vitb32.py"

generate = None
# A small GPT-2 for the prefix captioner instead of the pretrained one, to train it on a CPU:
# language_model = dict(layers=4, width=256, heads=4)
language_model = None
