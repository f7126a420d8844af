# pcm make-dataset CAPTIONS --recipe recommended_vitl14 --out data/mine
#
# The recommended recipe with OpenAI's CLIP ViT-L/14; patches and dropout as in sd15_vitl14.py.
_base_ = "./recommended.py"

extract = dict(model="ViT-L-14-quickgelu", pool=2, batch_size=128)
model = dict(encoder=dict(dropout=0.25), decoder=dict(dropout=0.25))
