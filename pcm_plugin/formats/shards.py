"""A folder of shards with a manifest: the form of generated images and of feature stores."""

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

VERSION = 1
_REPRESENTATIVE_SIZE = 20
# Not the manifest itself, which is replaced when it is written.
_LOCK_FILE = ".lock"


def shard_name(index: int) -> str:
    """Return the name of a shard."""
    return f"shard-{index:05d}"


@dataclass(frozen=True)
class Shard:
    """A shard that is wanted.

    Attributes:
        name: Its name, e.g. ``'shard-00000'``.
        count: Number of samples that go into it.
        digest: Changes with what it is made from.
    """

    name: str
    count: int
    digest: str

    def is_representative(self) -> bool:
        """Whether it is no accident if all of its samples fail: the first shard, or a large one.

        It must not depend on what else is finished, which differs between runs.
        """
        return self.count >= _REPRESENTATIVE_SIZE or self.name.endswith("-00000")


class ShardFolder:
    """The shards that are finished, and the settings that made them.

    ``manifest.json`` holds ``format``, ``version``, ``settings`` and their ``fingerprint``,
    ``info`` (facts found on the way, such as feature sizes), ``num_expected`` (how many shards
    whoever wrote last set out to make) and ``shards``: a record for each finished shard with at
    least ``count`` and ``files`` (name -> ``sha256``, ``bytes``), and ``digest`` and ``num_source`` of
    the :class:`Shard` that was wanted. A shard is listed after its
    files are whole and synced, so what is listed can be read, and what is not listed does not
    count, whatever lies in the folder. Several processes may list shards of one folder; the
    manifest is changed under a lock.

    Args:
        path: The folder.
        format: Required format of its shards, e.g. ``'pcm-features'``. None accepts any.
        made_by: Commands that write this format, for the message if it is another. Defaults to
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
        """Record of each finished shard by name, in the order of the names."""
        return dict(sorted(self.manifest["shards"].items()))

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
        wanted: Sequence[Shard],
    ) -> "ShardFolder":
        """Open a folder for writing; make it if it is new.

        A shard whose files are missing or cut is no longer listed, so that it is made again. A
        folder without a finished shard takes on new settings: nothing was made with the old ones.

        Args:
            path: The folder.
            format: What its shards hold.
            settings: JSON values on which the content of the shards depends.
            wanted: All shards that the work at hand needs. One that was made of fewer samples is no
                longer listed, so that it is made again.

        Raises:
            UserError: If the folder was made with other settings, and the difference is named; of
                other samples; or of more than is wanted now.
        """
        path = Path(path)
        path.mkdir(parents=True, exist_ok=True)
        settings = json.loads(json.dumps(settings))
        with file_lock(path / _LOCK_FILE):
            if not (path / "manifest.json").exists() or not cls(path, format).shards:
                manifest = {"format": format, "version": VERSION, "info": {}, "shards": {}}
                manifest |= {"settings": settings, "fingerprint": fingerprint(settings)}
                write_json(path / "manifest.json", manifest | {"num_expected": len(wanted)})
            folder = cls(path, format)
            _refuse_changes(path, folder.manifest["settings"], settings)
            if len(folder.shards) > len(wanted):
                raise UserError(
                    f"{path} holds {len(folder.shards)} shards, more than the {len(wanted)} of "
                    "what is given now: give as much as before, or another folder"
                )
            lost = set(folder.find_damaged(checksums=False))
            kept = {k: v for k, v in folder.shards.items() if lost.isdisjoint(v["files"])}
            for shard in wanted:
                if shard.name in kept and not _is_made(kept[shard.name], shard, path):
                    del kept[shard.name]
            old = (folder.manifest["num_expected"], folder.manifest["shards"])
            if old != (len(wanted), kept):
                folder.manifest |= {"num_expected": len(wanted), "shards": kept}
                write_json(path / "manifest.json", folder.manifest)
        return folder

    @staticmethod
    def check_settings(path: str | os.PathLike, format: str, settings: dict[str, Any]) -> None:
        """Refuse settings that are not those of the folder's shards, if it has any.

        Raises:
            UserError: If they differ; the difference is named.
        """
        if (Path(path) / "manifest.json").is_file():
            folder = ShardFolder(path, format)
            if folder.shards:
                settings = json.loads(json.dumps(settings))
                _refuse_changes(folder.path, folder.manifest["settings"], settings)

    def commit(
        self,
        shard: Shard,
        files: list[str],
        count: int,
        info: dict[str, Any] | None = None,
        **record: Any,
    ) -> None:
        """List a finished shard.

        Args:
            shard: Which; an old record of that name is replaced.
            files: Names of its files, already whole.
            count: Number of samples in it, those that were left out not counted.
            info: Facts that must be the same for all shards.
            **record: Further JSON values to keep with the shard.

        Raises:
            UserError: If ``info`` differs from that of the shards listed before, or another
                process has begun the folder anew with other settings.
        """
        record |= {"count": count, "digest": shard.digest, "num_source": shard.count}
        record["files"] = {
            file: {"sha256": sha256(self.path / file), "bytes": (self.path / file).stat().st_size}
            for file in files
        }
        with file_lock(self.path / _LOCK_FILE):
            self.refresh()
            if self.manifest["info"]:
                _refuse_changes(self.path, self.manifest["info"], info or {})
            self.manifest["info"] = info or {}
            self.manifest["shards"][shard.name] = record
            write_json(self.path / "manifest.json", self.manifest)

    def refresh(self) -> None:
        """See what other processes have listed since.

        Raises:
            UserError: If one of them has begun the folder anew with other settings.
        """
        self.manifest = self._load()
        _refuse_changes(self.path, self.manifest["settings"], self._settings)

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
        """Names of listed files that are missing or not as they were written.

        Args:
            checksums: Whether to read every file and compare its SHA-256; otherwise only sizes
                are compared. Defaults to True.
            progress: Whether to show a bar. Defaults to False.
        """
        found = []
        for record in tqdm(self.shards.values(), desc="verify", unit="shard", disable=not progress):
            for file, facts in record["files"].items():
                path = self.path / file
                if (
                    not path.is_file()
                    or path.stat().st_size != facts["bytes"]
                    or (checksums and sha256(path) != facts["sha256"])
                ):
                    found.append(file)
        return found

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
            raise UserError(f"{path} has version {version}; this release reads {VERSION}")
        return manifest


def _is_made(record: dict[str, Any], shard: Shard, path: Path) -> bool:
    if record["digest"] == shard.digest:
        return True
    if record["num_source"] < shard.count:
        return False
    raise UserError(
        f"{path} was made of other samples ({shard.name} is of {record['num_source']}, now it would "
        f"be of {shard.count} that are not the same): give the old ones, or another folder"
    )


def _refuse_changes(path: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    changes = [
        f"{key}: {old.get(key)!r} there, {new.get(key)!r} now"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    if changes:
        raise UserError(
            f"{path} was made with other settings ({'; '.join(changes)}): "
            "give the old ones, or another folder"
        )
