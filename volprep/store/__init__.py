"""The patch set on disk.

    OUT/
      config.resolved.yaml  fingerprint.json  plan.yaml  splits.json  train.yaml  findings.json
      patches/{train,val}.zarr     image (N, C, Z, Y, X), label (N, Z, Y, X), index (N, 11), ...
      sites/  volumes/  skeletons/    where patches are cut, and from what
      ledger.jsonl                    every file with its size and checksum, by unit of work
      manifest.json                   covers the ledger and itself; what a loader reads first

A set is built in ``OUT.partial`` and renamed when it is whole. `verify_set` compares every
file with what was written. One behind a URL is read through a mirror (`local_folder`).
"""

from volprep.files import load_json, write_json, write_text
from volprep.store.mirror import bytes_of, fetched, is_set, local_folder
from volprep.store.publish import Published, check_url, publish
from volprep.store.reader import PatchReader, close_shards
from volprep.store.sets import PatchStore
from volprep.store.shards import (
    FORMAT,
    INDEX_COLUMNS,
    PATCHES_PER_SHARD,
    ArraySpec,
    PatchWriter,
    encoded_size,
)
from volprep.store.verify import Fault, verify_set
from volprep.store.volumes import (
    CaseWriter,
    StoredCase,
    StoredVolume,
    fitted_chunks,
    narrowest,
    packed_often,
    volume_path,
)

__all__ = [
    "FORMAT",
    "INDEX_COLUMNS",
    "PATCHES_PER_SHARD",
    "ArraySpec",
    "CaseWriter",
    "Fault",
    "PatchReader",
    "PatchStore",
    "PatchWriter",
    "Published",
    "StoredCase",
    "StoredVolume",
    "bytes_of",
    "check_url",
    "close_shards",
    "encoded_size",
    "fetched",
    "fitted_chunks",
    "is_set",
    "load_json",
    "local_folder",
    "narrowest",
    "packed_often",
    "publish",
    "verify_set",
    "volume_path",
    "write_json",
    "write_text",
]
