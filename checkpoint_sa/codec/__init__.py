"""Between LangGraph's objects and rows: the serializer, JSON, ids. No database.

A checkpoint becomes two JSON documents, its own and its metadata, and one blob for each channel
value that JSON can't hold exactly. The parts of the documents that JSON can't hold go into `exact`.

    ids          ids, keys and configs: checked, and as text
    exact_json   the values that JSON holds exactly
    values       single values through the serializer
    checkpoints  checkpoints, writes and histories as rows, and back
    filters      the criteria of `list`, and the meaning of a filter
"""

from checkpoint_sa.codec.checkpoints import (
    blob_row,
    checkpoint_rows,
    dump_checkpoint,
    dump_writes,
    inlines,
    load_checkpoint,
    load_history,
    load_metadata,
    task_columns,
    write_row,
)
from checkpoint_sa.codec.exact_json import encode_json
from checkpoint_sa.codec.filters import criteria, matches
from checkpoint_sa.codec.ids import (
    RunIds,
    address,
    channels,
    check_copyable,
    check_key_size,
    config_of,
    next_version,
    run_ids,
    thread_id,
    thread_ids,
    validate_id,
)
from checkpoint_sa.codec.values import (
    AS_PACKED,
    Packed,
    dump,
    dump_plain,
    encrypts,
    estimate_size,
    has_plain_output,
    read_back,
)

__all__ = [
    "AS_PACKED",
    "Packed",
    "RunIds",
    "address",
    "blob_row",
    "channels",
    "check_copyable",
    "check_key_size",
    "checkpoint_rows",
    "config_of",
    "criteria",
    "dump",
    "dump_checkpoint",
    "dump_plain",
    "dump_writes",
    "encode_json",
    "encrypts",
    "estimate_size",
    "has_plain_output",
    "inlines",
    "load_checkpoint",
    "load_history",
    "load_metadata",
    "matches",
    "next_version",
    "read_back",
    "run_ids",
    "task_columns",
    "thread_id",
    "thread_ids",
    "validate_id",
    "write_row",
]
