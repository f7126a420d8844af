# pcm make-dataset CAPTIONS --recipe text_toy --out data/mine
#
# Captions alone, encoded by the CLIP of the toy world, for captions of its kind; needs no download.
_base_ = "./toy.py"

generate = None
language_model = dict(vocab_size=8192, layers=2, width=128, heads=4)
# As configs/capdec/capdec_toy.py and configs/decap/decap_toy.py.
_layers = dict(embed_dims=128, num_layers=2, num_heads=4, ffn_dims=512)
_words = dict(neck=dict(embed_dims=128), encoder=_layers, decoder=_layers)
model = dict(_delete_=True, capdec=_words, decap=_words)
