"""Names of local models."""

from pcm_plugin.datasets.durable import name_by_content


def test_a_local_model_is_named_by_its_content_not_by_its_card(tmp_path):
    model = tmp_path / "model"
    (model / "unet").mkdir(parents=True)
    (model / "unet" / "weights.safetensors").write_bytes(b"weights")
    name = name_by_content(model)
    assert name.startswith("model (sha256 ")
    (model / "README.md").write_text("What it is.")
    (model / ".cache").write_text("hidden")
    assert name_by_content(model) == name
    (model / "unet" / "weights.safetensors").write_bytes(b"other weights")
    assert name_by_content(model) != name
