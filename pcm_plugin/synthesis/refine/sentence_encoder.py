"""Sentence encoders in the folder layout of sentence-transformers, loaded with transformers.

``modules.json``, ``sentence_bert_config.json``, the ``config.json`` of the pooling and the default
prompt of ``config_sentence_transformers.json`` are read, so sentence-transformers does not have to
be installed. Embeddings are always L2-normalized, as only cosines are used.
"""

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.atomic_io import folder_sha256
from pcm_plugin.models.functional.pooling import POOLINGS, pool_tokens

_FILES = ["*.json", "*.txt", "*.model", "*.safetensors", "*/*.json"]
# Sentences of similar length are encoded together, so there is little padding. The batch size is
# not a setting because embeddings depend on it in their last bits.
_BATCH = 256


class SentenceEncoder:
    """Encoder of sentences: a transformer, a pooling of its tokens, and L2 normalization.

    Args:
        name: Folder of a sentence-transformers model or of a plain transformers encoder, or a name
            on the Hugging Face Hub, such as
            ``'sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2'``, which SynC uses.
        pooling: Pooling of tokens for a folder that does not specify one; one of
            :data:`.functional.pooling.POOLINGS`. Defaults to None.
        device: Device of the model. Defaults to ``'cpu'``.

    Attributes:
        identity: Name of the encoder with the hash of its files, independent of their location.

    Raises:
        MissingFileError: If the folder or files in it are missing, or the hub does not have it.
        UserError: If the folder has modules other than a transformer, a pooling and a
            normalization, or if not exactly one of the folder and ``pooling`` specifies the
            pooling.
    """

    def __init__(self, name: str, pooling: str | None = None, device: str = "cpu") -> None:
        if pooling is not None and pooling not in POOLINGS:
            raise UserError(f"pooling must be one of {POOLINGS}, got {pooling!r}")
        folder, shown = _find(name)
        modules = _modules(folder)
        self._folder = folder / modules.get("Transformer", "")
        if not (self._folder / "config.json").is_file():
            raise MissingFileError(
                f"no transformers model in {self._folder}: there is no config.json"
            )
        self._poolings = _poolings(folder, modules, pooling)
        self._prompt = _default_prompt(folder)
        settings = _bert_config(self._folder)
        self._lower = bool(settings.get("do_lower_case"))
        self._max_length = settings.get("max_seq_length")
        self._device = device
        self._model: Any = None
        chosen = "" if pooling is None else f", pooling {pooling}"
        self.identity = f"{shown} (sha256 {folder_sha256(folder)[:16]}{chosen})"

    def encode(self, sentences: list[str]) -> Tensor:
        """Encode sentences.

        Args:
            sentences: n sentences; longer ones than the model's limit are cut.

        Returns:
            (n, D) float32 on the CPU, each row of length 1.
        """
        self._load()
        texts = [self._prompt + text.strip() for text in sentences]
        if self._lower:
            texts = [text.lower() for text in texts]
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        encoded = [
            self._encode_batch([texts[i] for i in order[start : start + _BATCH]])
            for start in range(0, len(order), _BATCH)
        ]
        rows = torch.cat(encoded) if encoded else torch.empty(0, self._model.config.hidden_size)
        return rows[torch.tensor(order, dtype=torch.int64).argsort()]

    @torch.inference_mode()
    def _encode_batch(self, texts: list[str]) -> Tensor:
        inputs = self._tokenizer(
            texts, padding=True, truncation=True, max_length=self._max_length, return_tensors="pt"
        ).to(self._device)
        tokens = self._model(**inputs).last_hidden_state.float()
        pooled = [pool_tokens(tokens, inputs["attention_mask"], p) for p in self._poolings]
        return F.normalize(torch.cat(pooled, dim=-1), dim=-1).cpu()

    def _load(self) -> None:
        """Load the model on first use; a run that finds all captions encoded never needs it."""
        if self._model is not None:
            return
        from transformers import AutoConfig, AutoModel, AutoTokenizer, logging

        verbosity = logging.get_verbosity()
        # transformers warns about a pooler without weights, which is not used.
        logging.set_verbosity_error()
        try:
            config = AutoConfig.from_pretrained(
                self._folder, trust_remote_code=False, local_files_only=True
            )
            if config.is_encoder_decoder:
                raise UserError(f"it is an encoder-decoder ({config.model_type}), not an encoder")
            self._tokenizer = AutoTokenizer.from_pretrained(
                self._folder, trust_remote_code=False, local_files_only=True
            )
            # Prefers safetensors; a .bin is read with weights_only.
            model, info = AutoModel.from_pretrained(
                self._folder,
                config=config,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
            # The pooler of transformers is not used.
            missing = sorted(key for key in info["missing_keys"] if "pooler." not in key)
            if missing:
                raise UserError(f"its weights lack {missing[0]} and {len(missing) - 1} more")
        except Exception as error:  # readers raise many types for broken files
            reason = _one_line(error)
            if "trust_remote_code" in str(error):
                reason = "it needs Python code from its folder, which is not executed"
            raise UserError(f"sentence encoder {self._folder} cannot be loaded: {reason}") from None
        finally:
            logging.set_verbosity(verbosity)
        limits = [self._max_length, self._tokenizer.model_max_length, _num_positions(model)]
        self._max_length = min(limit for limit in limits if limit is not None and limit > 0)
        self._model = model.float().eval().to(self._device)


def _num_positions(model: Any) -> int | None:
    """Return the length in tokens of the longest sequence that a model can encode.

    In RoBERTa and its relatives, positions start after the padding index: of 514 position
    embeddings, 512 are usable.
    """
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            unused = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - unused
    return getattr(model.config, "max_position_embeddings", None)  # rotary embeddings, say


def _find(name: str) -> tuple[Path, str]:
    """Return the folder of a model, and its name for records."""
    folder = Path(name)
    if folder.is_dir():
        return folder, folder.resolve().name
    if len(folder.parts) > 2 or name.startswith((".", "/", "~")):
        raise MissingFileError(
            f"no folder {name}: sentence_encoder must be a local folder, or a name on the hub as "
            "OWNER/NAME"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=_FILES)), name
    except Exception as error:  # the hub's client raises many types, from network to name errors
        raise MissingFileError(
            f"sentence encoder {name} is not a folder, and the hub does not provide it "
            f"({_one_line(error)}): download its files elsewhere, and pass the folder"
        ) from None


def _modules(folder: Path) -> dict[str, str]:
    """Return the folder of each module by class name; empty for a plain transformers model."""
    path = folder / "modules.json"
    if not path.is_file():
        return {}
    entries = _read_json(path)
    try:
        modules = {entry["type"].rpartition(".")[2]: entry["path"] for entry in entries}
        types = [entry["type"].rpartition(".")[2] for entry in entries]
    except (TypeError, KeyError, AttributeError):
        raise UserError(f"{path} must be a list of modules with type and path") from None
    if types not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise UserError(
            f"{path} has the modules {', '.join(types) or 'none'}; supported are Transformer, "
            "Pooling and, optionally, Normalize"
        )
    return modules


def _poolings(folder: Path, modules: dict[str, str], pooling: str | None) -> list[str]:
    path = folder / modules.get("Pooling", "1_Pooling") / "config.json"
    if not path.is_file():
        if modules:
            raise MissingFileError(f"there is no {path}: {folder} is incomplete")
        if pooling is None:
            raise UserError(
                f"{folder} does not say how tokens are pooled (there is no {path}): set it with "
                f"--pooling, one of {', '.join(POOLINGS)}"
            )
        return [pooling]
    if pooling is not None:
        raise UserError(f"{path} says how tokens are pooled: leave out --pooling {pooling}")
    config = _read_json(path)
    if config.get("include_prompt") is False and _default_prompt(folder):
        raise UserError(f"{path}: include_prompt=false with a default prompt is not supported")
    keys = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens"}
    keys["weightedmean"] = "weightedmean_tokens"
    # sentence-transformers concatenates in this order.
    order = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
    found = [name for name in order if config.get(f"pooling_mode_{keys.get(name, name)}")]
    named = config.get("pooling_mode")
    found = found or ([named] if isinstance(named, str) else list(named or []))
    if not found or not set(found) <= set(POOLINGS):
        raise UserError(f"{path} must name a pooling of {', '.join(POOLINGS)}, got {config}")
    return found


def _default_prompt(folder: Path) -> str:
    path = folder / "config_sentence_transformers.json"
    config = _read_json(path) if path.is_file() else {}
    name = config.get("default_prompt_name")
    return (config.get("prompts") or {}).get(name, "") if name else ""


def _bert_config(folder: Path) -> dict[str, Any]:
    # Older models name it after their architecture, such as sentence_roberta_config.json.
    paths = sorted(folder.glob("sentence_*_config.json"))
    return _read_json(paths[0]) if paths else {}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
