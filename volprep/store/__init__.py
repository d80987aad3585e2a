"""The patch set on disk.

    OUT/
      config.resolved.yaml  fingerprint.json  plan.yaml  splits.json  train.yaml  manifest.json
      patches/{train,val}.zarr     image (N, C, Z, Y, X), label (N, Z, Y, X), index (N, 11), ...

A set is built in ``OUT.partial`` and renamed when it is whole; `manifest.json` is
its last file.
"""

from volprep.files import load_json, write_json, write_text
from volprep.store.files import content_hash, describe_file
from volprep.store.reader import PatchReader
from volprep.store.sets import PatchStore, WorkingFolder, publish
from volprep.store.shards import (
    INDEX_COLUMNS,
    PATCHES_PER_SHARD,
    ArraySpec,
    PatchWriter,
)
from volprep.store.verify import Fault, verify_set
from volprep.store.volumes import StoredVolume, create_case_array

__all__ = [
    "INDEX_COLUMNS",
    "PATCHES_PER_SHARD",
    "ArraySpec",
    "Fault",
    "PatchReader",
    "PatchStore",
    "PatchWriter",
    "StoredVolume",
    "WorkingFolder",
    "content_hash",
    "create_case_array",
    "describe_file",
    "load_json",
    "publish",
    "verify_set",
    "write_json",
    "write_text",
]
