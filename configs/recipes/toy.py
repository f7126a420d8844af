# pcm make-dataset CAPTIONS --recipe toy --out data/mine
#
# The diffusion model and the CLIP of the toy world, for captions of its kind; needs no download.
_assets = __import__("pcm_plugin").packaged_file("toyworld/assets")

vocabulary = dict(min_count=3)
concepts = dict(min_count=3, max_nouns=60, phrases=False, templates=["A photo of {}"])
generate = dict(
    pipeline=f"{_assets}/diffusion",
    steps=12,
    guidance=2.0,
    format="png",
    batch_size=25,
)
extract = dict(model=f"local-dir:{_assets}/clip")
refine = None
# As configs/pcm_toy.py.
model = dict(
    neck=dict(embed_dims=128),
    encoder=dict(embed_dims=128, num_layers=2, num_heads=4, ffn_dims=512),
    decoder=dict(embed_dims=128, num_layers=2, num_heads=4, ffn_dims=512),
)
