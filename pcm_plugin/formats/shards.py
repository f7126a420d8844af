"""Folder of shards with a manifest, the common layout of image shards and feature stores."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.atomic_io import fingerprint, sha256, write_json
from pcm_plugin.formats.locks import file_lock

VERSION = 2
_REPRESENTATIVE_SIZE = 20
# Not the manifest itself, which is replaced when it is written.
_LOCK_FILE = ".lock"


def shard_name(index: int) -> str:
    """Return the name of a shard."""
    return f"shard-{index:05d}"


@dataclass(frozen=True)
class Shard:
    """A shard to write.

    Attributes:
        name: Name, e.g. ``'shard-00000'``.
        count: Number of its source samples.
        digest: Digest of its source samples.
    """

    name: str
    count: int
    digest: str

    def is_representative(self) -> bool:
        """Return whether a run should abort if every sample of this shard fails.

        True for the first shard and for large ones. The answer does not depend on which other
        shards are finished, since that differs between runs.
        """
        return self.count >= _REPRESENTATIVE_SIZE or self.name.endswith("-00000")


class ShardFolder:
    """Finished shards of a folder and the settings that they were made with.

    ``manifest.json`` holds

    - ``format`` and ``version``;
    - ``settings`` and their ``fingerprint``;
    - ``info``: facts that all shards share, such as feature sizes;
    - ``num_expected``: number of shards that the last writer planned;
    - ``shards``: for each finished shard a record with ``count`` (samples), ``num_source`` and
      ``digest`` (of the :class:`Shard` that was planned), ``files`` (name to ``sha256`` and
      ``bytes``) and values of the format, such as ``skipped``.

    A shard is listed once its files are complete and synced. Files that are not listed do not
    count. Several processes may list shards of the same folder; a lock protects the manifest.

    Args:
        path: The folder.
        format: Required format of its shards, e.g. ``'pcm-features'``. None accepts any.
        made_by: Commands that write this format, for the message about another one. Defaults to
            None.

    Raises:
        MissingFileError: If there is no manifest in the folder.
        UserError: If the manifest is damaged, or of another format or version.
    """

    def __init__(
        self, path: str | os.PathLike, format: str | None, made_by: str | None = None
    ) -> None:
        self.path = Path(path)
        self.format = format
        self._made_by = made_by
        self.manifest: dict[str, Any] = self._load()
        self._settings = self.manifest["settings"]

    @property
    def shards(self) -> dict[str, dict[str, Any]]:
        """Records of the finished shards by name, sorted by name."""
        return dict(sorted(self.manifest["shards"].items()))

    @property
    def num_skipped(self) -> int:
        """Number of entries that were skipped when the shards were made."""
        return sum(len(record.get("skipped", ())) for record in self.shards.values())

    @property
    def complete(self) -> bool:
        """Whether all expected shards are finished."""
        return len(self.manifest["shards"]) >= self.manifest["num_expected"]

    @classmethod
    def open_for_write(
        cls,
        path: str | os.PathLike,
        format: str,
        settings: dict[str, Any],
        plan: Sequence[Shard],
    ) -> "ShardFolder":
        """Open a folder for writing; create it if it does not exist.

        Shards whose files are missing or cut, or that were made from fewer samples than planned,
        are removed from the manifest so that they are made again. A folder without a finished shard
        accepts new settings.

        Args:
            path: The folder.
            format: Format of its shards.
            settings: JSON values on which the content of the shards depends.
            plan: All shards that the folder should have.

        Raises:
            UserError: If the folder was made with other settings, which the message names; from
                other samples; or from more samples than planned.
        """
        path = Path(path)
        path.mkdir(parents=True, exist_ok=True)
        settings = json.loads(json.dumps(settings))
        with file_lock(path / _LOCK_FILE):
            if not (path / "manifest.json").exists() or not cls(path, format).shards:
                manifest = {"format": format, "version": VERSION, "info": {}, "shards": {}}
                manifest |= {"settings": settings, "fingerprint": fingerprint(settings)}
                write_json(path / "manifest.json", manifest | {"num_expected": len(plan)})
            folder = cls(path, format)
            _check_unchanged(path, folder.manifest["settings"], settings)
            if len(folder.shards) > len(plan):
                raise UserError(
                    f"{path} must have at most the {len(plan)} planned shards, got "
                    f"{len(folder.shards)}: pass all samples of the earlier run, or another folder"
                )
            lost = set(folder.find_damaged(checksums=False))
            kept = {k: v for k, v in folder.shards.items() if lost.isdisjoint(v["files"])}
            for shard in plan:
                if shard.name in kept and not _is_current(kept[shard.name], shard, path):
                    del kept[shard.name]
            old = (folder.manifest["num_expected"], folder.manifest["shards"])
            if old != (len(plan), kept):
                folder.manifest |= {"num_expected": len(plan), "shards": kept}
                write_json(path / "manifest.json", folder.manifest)
        return folder

    @staticmethod
    def check_settings(path: str | os.PathLike, format: str, settings: dict[str, Any]) -> None:
        """Check that settings equal those of the finished shards of a folder, if it has any.

        Raises:
            UserError: If they differ; the message names the difference.
        """
        if (Path(path) / "manifest.json").is_file():
            folder = ShardFolder(path, format)
            if folder.shards:
                settings = json.loads(json.dumps(settings))
                _check_unchanged(folder.path, folder.manifest["settings"], settings)

    def commit(
        self,
        shard: Shard,
        files: list[str],
        count: int,
        info: dict[str, Any] | None = None,
        **record: Any,
    ) -> None:
        """List a finished shard in the manifest.

        Args:
            shard: The shard; an earlier record with its name is replaced.
            files: Names of its files, which are complete.
            count: Number of samples in it, without the skipped ones.
            info: Facts that must be the same for all shards. Defaults to None.
            **record: Further JSON values for the shard's record.

        Raises:
            UserError: If ``info`` differs from that of the other shards, or another process has
                started the folder again with other settings.
        """
        record |= {"count": count, "digest": shard.digest, "num_source": shard.count}
        record["files"] = {
            file: {"sha256": sha256(self.path / file), "bytes": (self.path / file).stat().st_size}
            for file in files
        }
        with file_lock(self.path / _LOCK_FILE):
            self.refresh()
            if self.manifest["info"]:
                _check_unchanged(self.path, self.manifest["info"], info or {})
            self.manifest["info"] = info or {}
            self.manifest["shards"][shard.name] = record
            write_json(self.path / "manifest.json", self.manifest)

    def refresh(self) -> None:
        """Read the manifest again, which other processes may have changed.

        Raises:
            UserError: If another process has started the folder again with other settings.
        """
        self.manifest = self._load()
        _check_unchanged(self.path, self.manifest["settings"], self._settings)

    def check_complete(self) -> None:
        """Check that all expected shards are finished and no file is missing or cut.

        Raises:
            UserError: If not.
        """
        if not self.shards or not self.complete:
            raise UserError(
                f"{self.path} has {len(self.shards)} of {self.manifest['num_expected']} shards: "
                "run the command that made it again"
            )
        if damaged := self.find_damaged(checksums=False):
            raise UserError(
                f"files of {self.path} are missing or cut: {', '.join(damaged)}; "
                "run the command that made it again"
            )

    def find_damaged(self, checksums: bool = True, progress: bool = False) -> list[str]:
        """Return the names of listed files that are missing or have changed.

        Args:
            checksums: Whether to compare the SHA-256 of every file, not only its size. Defaults to
                True.
            progress: Whether to show a progress bar. Defaults to False.
        """
        damaged = []
        for record in tqdm(self.shards.values(), desc="verify", unit="shard", disable=not progress):
            for file, facts in record["files"].items():
                path = self.path / file
                if (
                    not path.is_file()
                    or path.stat().st_size != facts["bytes"]
                    or (checksums and sha256(path) != facts["sha256"])
                ):
                    damaged.append(file)
        return damaged

    def _load(self) -> dict[str, Any]:
        path = self.path / "manifest.json"
        if not path.is_file():
            raise MissingFileError(f"no manifest.json in {self.path}")
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            found, version = manifest["format"], manifest["version"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise UserError(f"{path} is not a manifest: {error}") from error
        if self.format not in (None, found):
            fix = f": pass a folder of {self._made_by}" if self._made_by else ""
            raise UserError(f"{self.path} must hold {self.format!r}, got {found!r}{fix}")
        if version != VERSION:
            raise UserError(
                f"version of {path} must be {VERSION}, got {version}: make the folder again with "
                "this release"
            )
        return manifest


def _is_current(record: dict[str, Any], shard: Shard, path: Path) -> bool:
    if record["digest"] == shard.digest:
        return True
    if record["num_source"] < shard.count:
        return False
    raise UserError(
        f"{path} was made from other samples ({shard.name} from {record['num_source']}, now it "
        f"would be from {shard.count} that differ): pass the old samples, or another folder"
    )


def _check_unchanged(path: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    changes = [
        f"{key}: {old.get(key)!r} there, {new.get(key)!r} now"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    if changes:
        raise UserError(
            f"{path} was made with other settings ({'; '.join(changes)}): "
            "pass the old ones, or another folder"
        )
