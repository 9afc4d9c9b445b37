-- put: values
INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, `blob`)
VALUES (%s, %s, %s, %s, %s, %s)
ON DUPLICATE KEY UPDATE thread_id = thread_id;

-- put: checkpoint
INSERT INTO checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata, run_id, exact)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
ON DUPLICATE KEY UPDATE type = VALUES(type), checkpoint = VALUES(checkpoint), metadata = VALUES(metadata), run_id = VALUES(run_id), exact = VALUES(exact);

-- put, incremental: lock the values that are appended to
SELECT head.channel, base.version, base.`blob`
FROM checkpoint_deltas AS head INNER JOIN checkpoint_blobs AS base ON base.thread_id = head.thread_id AND base.checkpoint_ns = head.checkpoint_ns AND base.channel = head.channel AND base.chain = head.chain
WHERE head.`position` = 0 AND head.thread_id = %s AND head.checkpoint_ns = %s AND head.channel IN (__[POSTCOMPILE_channels]) AND head.chain IN (__[POSTCOMPILE_chains]) AND base.version IN (__[POSTCOMPILE_versions]) LOCK IN SHARE MODE;

-- put, incremental: the rows of chains
INSERT INTO checkpoint_deltas (thread_id, checkpoint_ns, channel, chain, `position`, data)
VALUES (%s, %s, %s, %s, %s, %s);

-- put, incremental: values in chains
INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, `blob`, chain, `position`)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s);

-- put_writes: ordinary ones
INSERT INTO checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, `blob`, task_path)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
ON DUPLICATE KEY UPDATE thread_id = thread_id;

-- put_writes: special ones
INSERT INTO checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, `blob`, task_path)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
ON DUPLICATE KEY UPDATE channel = VALUES(channel), type = VALUES(type), `blob` = VALUES(`blob`), task_path = VALUES(task_path);

-- get_tuple: the latest
SELECT checkpoints.checkpoint_id, checkpoints.parent_checkpoint_id, checkpoints.checkpoint AS checkpoint, checkpoints.metadata AS metadata, checkpoints.type, checkpoints.exact
FROM checkpoints
WHERE checkpoints.thread_id = %s AND checkpoints.checkpoint_ns = %s
ORDER BY checkpoints.checkpoint_id DESC
LIMIT 1;

-- get_tuple: one
SELECT checkpoints.checkpoint_id, checkpoints.parent_checkpoint_id, checkpoints.checkpoint AS checkpoint, checkpoints.metadata AS metadata, checkpoints.type, checkpoints.exact
FROM checkpoints
WHERE checkpoints.thread_id = %s AND checkpoints.checkpoint_ns = %s AND checkpoints.checkpoint_id = %s;

-- get_tuple: its parts, two values
SELECT 0 AS kind, checkpoint_writes.channel AS text_1, checkpoint_writes.task_path AS text_2, checkpoint_writes.task_id AS text_3, checkpoint_writes.idx AS number, checkpoint_writes.type AS tag, checkpoint_writes.`blob` AS data
FROM checkpoint_writes
WHERE checkpoint_writes.thread_id = %s AND checkpoint_writes.checkpoint_ns = %s AND checkpoint_writes.checkpoint_id = %s
UNION ALL
SELECT 1 AS kind, checkpoint_writes.channel AS text_1, checkpoint_writes.task_path AS text_2, checkpoint_writes.task_id AS text_3, checkpoint_writes.idx AS number, checkpoint_writes.type AS tag, checkpoint_writes.`blob` AS data
FROM checkpoint_writes
WHERE checkpoint_writes.thread_id = %s AND checkpoint_writes.checkpoint_ns = %s AND checkpoint_writes.checkpoint_id = %s AND checkpoint_writes.channel = %s
UNION ALL
SELECT 2 AS kind, checkpoint_blobs.channel AS text_1, checkpoint_blobs.version AS text_2, checkpoint_blobs.chain AS text_3, checkpoint_blobs.`position` AS number, checkpoint_blobs.type AS tag, checkpoint_blobs.`blob` AS data
FROM checkpoint_blobs
WHERE checkpoint_blobs.thread_id = %s AND checkpoint_blobs.checkpoint_ns = %s AND (checkpoint_blobs.channel = %s AND checkpoint_blobs.version = %s OR checkpoint_blobs.channel = %s AND checkpoint_blobs.version = %s)
UNION ALL
SELECT 5 AS kind, '' AS text_1, '' AS text_2, '' AS text_3, 0 AS number, '' AS tag, NULL AS data
FROM checkpoints
WHERE checkpoints.thread_id = %s AND checkpoints.checkpoint_ns = %s AND checkpoints.checkpoint_id = %s;

-- get_tuple, incremental: its parts, two values
SELECT 0 AS kind, checkpoint_writes.channel AS text_1, checkpoint_writes.task_path AS text_2, checkpoint_writes.task_id AS text_3, checkpoint_writes.idx AS number, checkpoint_writes.type AS tag, checkpoint_writes.`blob` AS data
FROM checkpoint_writes
WHERE checkpoint_writes.thread_id = %s AND checkpoint_writes.checkpoint_ns = %s AND checkpoint_writes.checkpoint_id = %s
UNION ALL
SELECT 1 AS kind, checkpoint_writes.channel AS text_1, checkpoint_writes.task_path AS text_2, checkpoint_writes.task_id AS text_3, checkpoint_writes.idx AS number, checkpoint_writes.type AS tag, checkpoint_writes.`blob` AS data
FROM checkpoint_writes
WHERE checkpoint_writes.thread_id = %s AND checkpoint_writes.checkpoint_ns = %s AND checkpoint_writes.checkpoint_id = %s AND checkpoint_writes.channel = %s
UNION ALL
SELECT 2 AS kind, checkpoint_blobs.channel AS text_1, checkpoint_blobs.version AS text_2, checkpoint_blobs.chain AS text_3, checkpoint_blobs.`position` AS number, checkpoint_blobs.type AS tag, checkpoint_blobs.`blob` AS data
FROM checkpoint_blobs
WHERE checkpoint_blobs.thread_id = %s AND checkpoint_blobs.checkpoint_ns = %s AND (checkpoint_blobs.channel = %s AND checkpoint_blobs.version = %s OR checkpoint_blobs.channel = %s AND checkpoint_blobs.version = %s)
UNION ALL
SELECT 5 AS kind, '' AS text_1, '' AS text_2, '' AS text_3, 0 AS number, '' AS tag, NULL AS data
FROM checkpoints
WHERE checkpoints.thread_id = %s AND checkpoints.checkpoint_ns = %s AND checkpoints.checkpoint_id = %s
UNION ALL
SELECT 3 AS kind, checkpoint_deltas.channel AS text_1, '' AS text_2, checkpoint_deltas.chain AS text_3, checkpoint_deltas.`position` AS number, '' AS tag, checkpoint_deltas.data AS data
FROM checkpoint_deltas INNER JOIN checkpoint_blobs ON checkpoint_deltas.thread_id = checkpoint_blobs.thread_id AND checkpoint_deltas.checkpoint_ns = checkpoint_blobs.checkpoint_ns AND checkpoint_deltas.channel = checkpoint_blobs.channel AND checkpoint_deltas.chain = checkpoint_blobs.chain AND checkpoint_deltas.`position` <= checkpoint_blobs.`position`
WHERE checkpoint_blobs.thread_id = %s AND checkpoint_blobs.checkpoint_ns = %s AND (checkpoint_blobs.channel = %s AND checkpoint_blobs.version = %s OR checkpoint_blobs.channel = %s AND checkpoint_blobs.version = %s) AND NOT (checkpoint_blobs.chain = %s AND checkpoint_blobs.`position` = %s OR checkpoint_blobs.chain = %s AND checkpoint_blobs.`position` = %s OR checkpoint_blobs.chain = %s AND checkpoint_blobs.`position` = %s OR checkpoint_blobs.chain = %s AND checkpoint_blobs.`position` = %s);

-- list: a page of a namespace
SELECT found.thread_id, found.checkpoint_ns, found.checkpoint_id AS checkpoint_id, 4 AS kind, found.checkpoint AS text_1, found.parent_checkpoint_id AS text_2, found.metadata AS text_3, found.rank AS number, found.type AS tag, found.exact AS data
FROM (SELECT newest.thread_id AS thread_id, newest.checkpoint_ns AS checkpoint_ns, newest.checkpoint_id AS checkpoint_id, newest.parent_checkpoint_id AS parent_checkpoint_id, newest.checkpoint AS checkpoint, newest.metadata AS metadata, newest.type AS type, newest.exact AS exact, row_number() OVER (ORDER BY newest.checkpoint_id DESC) AS rank
FROM (SELECT checkpoints.thread_id AS thread_id, checkpoints.checkpoint_ns AS checkpoint_ns, checkpoints.checkpoint_id AS checkpoint_id, checkpoints.parent_checkpoint_id AS parent_checkpoint_id, checkpoints.checkpoint AS checkpoint, checkpoints.metadata AS metadata, checkpoints.type AS type, checkpoints.exact AS exact
FROM checkpoints
WHERE checkpoints.thread_id = %s AND checkpoints.checkpoint_ns = %s AND checkpoints.checkpoint_id < %s
ORDER BY checkpoints.checkpoint_id DESC
LIMIT 10) AS newest) AS found;

-- list: the parts of a page
SELECT checkpoint_writes.thread_id, checkpoint_writes.checkpoint_ns, checkpoint_writes.checkpoint_id AS checkpoint_id, 0 AS kind, checkpoint_writes.channel AS text_1, checkpoint_writes.task_path AS text_2, checkpoint_writes.task_id AS text_3, checkpoint_writes.idx AS number, checkpoint_writes.type AS tag, checkpoint_writes.`blob` AS data
FROM checkpoint_writes
WHERE (checkpoint_writes.thread_id, checkpoint_writes.checkpoint_ns, checkpoint_writes.checkpoint_id) IN (__[POSTCOMPILE_checkpoint_keys])
UNION ALL
SELECT checkpoint_writes.thread_id, checkpoint_writes.checkpoint_ns, checkpoint_writes.checkpoint_id AS checkpoint_id, 1 AS kind, checkpoint_writes.channel AS text_1, checkpoint_writes.task_path AS text_2, checkpoint_writes.task_id AS text_3, checkpoint_writes.idx AS number, checkpoint_writes.type AS tag, checkpoint_writes.`blob` AS data
FROM checkpoint_writes
WHERE (checkpoint_writes.thread_id, checkpoint_writes.checkpoint_ns, checkpoint_writes.checkpoint_id) IN (__[POSTCOMPILE_send_keys]) AND checkpoint_writes.channel = %s
UNION ALL
SELECT checkpoint_blobs.thread_id, checkpoint_blobs.checkpoint_ns, '' AS checkpoint_id, 2 AS kind, checkpoint_blobs.channel AS text_1, checkpoint_blobs.version AS text_2, checkpoint_blobs.chain AS text_3, checkpoint_blobs.`position` AS number, checkpoint_blobs.type AS tag, checkpoint_blobs.`blob` AS data
FROM checkpoint_blobs
WHERE (checkpoint_blobs.thread_id, checkpoint_blobs.checkpoint_ns, checkpoint_blobs.channel, checkpoint_blobs.version) IN (__[POSTCOMPILE_blob_keys])
UNION ALL
SELECT checkpoints.thread_id, checkpoints.checkpoint_ns, checkpoints.checkpoint_id AS checkpoint_id, 5 AS kind, '' AS text_1, '' AS text_2, '' AS text_3, 0 AS number, '' AS tag, NULL AS data
FROM checkpoints
WHERE (checkpoints.thread_id, checkpoints.checkpoint_ns, checkpoints.checkpoint_id) IN (__[POSTCOMPILE_present_keys]);

-- store: get
SELECT store.prefix, store.`key`, store.value AS value, store.created_at, store.updated_at, store.ttl_minutes
FROM store
WHERE store.prefix = %s AND store.`key` = %s AND (store.expires_at IS NULL OR store.expires_at > UTC_TIMESTAMP(6));

-- store: get several
SELECT store.prefix, store.`key`, store.value AS value, store.created_at, store.updated_at, store.ttl_minutes
FROM store
WHERE (store.prefix, store.`key`) IN (__[POSTCOMPILE_keys]) AND (store.expires_at IS NULL OR store.expires_at > UTC_TIMESTAMP(6));

-- store: put two
INSERT INTO store (prefix, `key`, value, created_at, updated_at, expires_at, ttl_minutes)
VALUES (%s, %s, %s, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6), TIMESTAMPADD(MICROSECOND, ROUND(%s * 60000000), UTC_TIMESTAMP(6)), %s), (%s, %s, %s, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6), TIMESTAMPADD(MICROSECOND, ROUND(%s * 60000000), UTC_TIMESTAMP(6)), %s)
ON DUPLICATE KEY UPDATE value = VALUES(value), updated_at = VALUES(updated_at), expires_at = VALUES(expires_at), ttl_minutes = VALUES(ttl_minutes);

-- store: delete
DELETE FROM store WHERE store.prefix = %s AND store.`key` = %s;

-- store: let times to live begin anew
UPDATE store SET expires_at=TIMESTAMPADD(MICROSECOND, ROUND(store.ttl_minutes * 60000000), UTC_TIMESTAMP(6)) WHERE (store.prefix, store.`key`) IN (__[POSTCOMPILE_keys]) AND store.ttl_minutes IS NOT NULL AND (store.expires_at IS NULL OR store.expires_at > UTC_TIMESTAMP(6));

-- store: search a namespace with a filter
SELECT store.prefix, store.`key`, store.value AS value, store.created_at, store.updated_at, store.ttl_minutes, found.rank
FROM (SELECT store.prefix AS prefix, store.`key` AS `key`, row_number() OVER (ORDER BY store.updated_at DESC, store.prefix, store.`key`) AS rank
FROM store
WHERE (store.expires_at IS NULL OR store.expires_at > UTC_TIMESTAMP(6)) AND (store.prefix = %s OR (store.prefix >= %s AND store.prefix < %s)) AND JSON_CONTAINS(store.value, %s)
ORDER BY store.updated_at DESC, store.prefix, store.`key`
LIMIT %s, %s) AS found INNER JOIN store ON store.prefix = found.prefix AND store.`key` = found.`key`;
