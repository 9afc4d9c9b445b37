-- put: two values
INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
SELECT ? AS anon_1, ? AS anon_2, ? AS anon_3, ? AS anon_4, ? AS anon_5, ? AS anon_6
UNION ALL
SELECT ? AS anon_7, ? AS anon_8, ? AS anon_9, ? AS anon_10, ? AS anon_11, ? AS anon_12
ON CONFLICT (thread_id, checkpoint_ns, channel, version) DO NOTHING;

-- put: checkpoint
INSERT INTO checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata, run_id, exact)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id) DO UPDATE SET type = excluded.type, checkpoint = excluded.checkpoint, metadata = excluded.metadata, run_id = excluded.run_id, exact = excluded.exact;

-- put, incremental: the row of a chain
INSERT INTO checkpoint_deltas (thread_id, checkpoint_ns, channel, chain, position, data)
SELECT ? AS anon_1, ? AS anon_2, ? AS anon_3, ? AS anon_4, CASE WHEN (? = 0) THEN 0 ELSE (SELECT base.position + 1 AS anon_6
FROM checkpoint_deltas AS head JOIN checkpoint_blobs AS base ON base.thread_id = head.thread_id AND base.checkpoint_ns = head.checkpoint_ns AND base.channel = head.channel AND base.chain = head.chain
WHERE head.position = 0 AND head.thread_id = ? AND head.checkpoint_ns = ? AND head.channel = ? AND head.chain = ? AND base.version = ? AND base.blob = ?) END AS anon_5, ? AS anon_7;

-- put, incremental: values in chains
INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob, chain, position)
VALUES (?, ?, ?, ?, ?, ?, ?, ?);

-- put_writes: two ordinary ones
INSERT INTO checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob, task_path)
SELECT ? AS anon_1, ? AS anon_2, ? AS anon_3, ? AS anon_4, ? AS anon_5, ? AS anon_6, ? AS anon_7, ? AS anon_8, ? AS anon_9
UNION ALL
SELECT ? AS anon_10, ? AS anon_11, ? AS anon_12, ? AS anon_13, ? AS anon_14, ? AS anon_15, ? AS anon_16, ? AS anon_17, ? AS anon_18
ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id, task_id, idx) DO NOTHING;

-- put_writes: two special ones
INSERT INTO checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob, task_path)
SELECT ? AS anon_1, ? AS anon_2, ? AS anon_3, ? AS anon_4, ? AS anon_5, ? AS anon_6, ? AS anon_7, ? AS anon_8, ? AS anon_9
UNION ALL
SELECT ? AS anon_10, ? AS anon_11, ? AS anon_12, ? AS anon_13, ? AS anon_14, ? AS anon_15, ? AS anon_16, ? AS anon_17, ? AS anon_18
ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id, task_id, idx) DO UPDATE SET channel = excluded.channel, type = excluded.type, blob = excluded.blob, task_path = excluded.task_path;

-- get_tuple: the latest
WITH found AS
(SELECT checkpoints.thread_id AS thread_id, checkpoints.checkpoint_ns AS checkpoint_ns, checkpoints.checkpoint_id AS checkpoint_id, checkpoints.parent_checkpoint_id AS parent_checkpoint_id, checkpoints.checkpoint AS checkpoint, checkpoints.metadata AS metadata, checkpoints.type AS type, checkpoints.exact AS exact, 0 AS rank
FROM checkpoints
WHERE checkpoints.thread_id = ? AND checkpoints.checkpoint_ns = ?
ORDER BY checkpoints.checkpoint_id DESC
LIMIT 1 OFFSET ?)
SELECT w.thread_id, w.checkpoint_ns, w.checkpoint_id AS checkpoint_id, 0 AS kind, w.channel AS text_1, w.task_path AS text_2, w.task_id AS text_3, w.idx AS number, w.type AS tag, w.blob AS data
FROM checkpoint_writes AS w JOIN found ON w.thread_id = found.thread_id AND w.checkpoint_ns = found.checkpoint_ns AND w.checkpoint_id = found.checkpoint_id
UNION ALL
SELECT w.thread_id, w.checkpoint_ns, w.checkpoint_id AS checkpoint_id, 1 AS kind, w.channel AS text_1, w.task_path AS text_2, w.task_id AS text_3, w.idx AS number, w.type AS tag, w.blob AS data
FROM checkpoint_writes AS w JOIN found ON w.thread_id = found.thread_id AND w.checkpoint_ns = found.checkpoint_ns AND w.checkpoint_id = found.parent_checkpoint_id
WHERE w.channel = ? AND coalesce(CAST(JSON_EXTRACT(found.checkpoint, ?) AS INTEGER), ?) < 4
UNION ALL
SELECT b.thread_id, b.checkpoint_ns, '' AS checkpoint_id, 2 AS kind, b.channel AS text_1, b.version AS text_2, b.chain AS text_3, b.position AS number, b.type AS tag, b.blob AS data
FROM checkpoint_blobs AS b JOIN (SELECT DISTINCT found.thread_id AS thread_id, found.checkpoint_ns AS checkpoint_ns, anon_1."key" AS channel, CAST(anon_1.value AS TEXT) AS version
FROM found JOIN json_each(found.checkpoint, '$.channel_versions') AS anon_1 ON 1 = 1) AS used ON b.thread_id = used.thread_id AND b.checkpoint_ns = used.checkpoint_ns AND b.channel = used.channel AND b.version = used.version
UNION ALL
SELECT found.thread_id, found.checkpoint_ns, found.checkpoint_id AS checkpoint_id, 4 AS kind, found.checkpoint AS text_1, found.parent_checkpoint_id AS text_2, found.metadata AS text_3, found.rank AS number, found.type AS tag, found.exact AS data
FROM found;

-- get_tuple: one
WITH found AS
(SELECT checkpoints.thread_id AS thread_id, checkpoints.checkpoint_ns AS checkpoint_ns, checkpoints.checkpoint_id AS checkpoint_id, checkpoints.parent_checkpoint_id AS parent_checkpoint_id, checkpoints.checkpoint AS checkpoint, checkpoints.metadata AS metadata, checkpoints.type AS type, checkpoints.exact AS exact, 0 AS rank
FROM checkpoints
WHERE checkpoints.thread_id = ? AND checkpoints.checkpoint_ns = ? AND checkpoints.checkpoint_id = ?)
SELECT w.thread_id, w.checkpoint_ns, w.checkpoint_id AS checkpoint_id, 0 AS kind, w.channel AS text_1, w.task_path AS text_2, w.task_id AS text_3, w.idx AS number, w.type AS tag, w.blob AS data
FROM checkpoint_writes AS w JOIN found ON w.thread_id = found.thread_id AND w.checkpoint_ns = found.checkpoint_ns AND w.checkpoint_id = found.checkpoint_id
UNION ALL
SELECT w.thread_id, w.checkpoint_ns, w.checkpoint_id AS checkpoint_id, 1 AS kind, w.channel AS text_1, w.task_path AS text_2, w.task_id AS text_3, w.idx AS number, w.type AS tag, w.blob AS data
FROM checkpoint_writes AS w JOIN found ON w.thread_id = found.thread_id AND w.checkpoint_ns = found.checkpoint_ns AND w.checkpoint_id = found.parent_checkpoint_id
WHERE w.channel = ? AND coalesce(CAST(JSON_EXTRACT(found.checkpoint, ?) AS INTEGER), ?) < 4
UNION ALL
SELECT b.thread_id, b.checkpoint_ns, '' AS checkpoint_id, 2 AS kind, b.channel AS text_1, b.version AS text_2, b.chain AS text_3, b.position AS number, b.type AS tag, b.blob AS data
FROM checkpoint_blobs AS b JOIN (SELECT DISTINCT found.thread_id AS thread_id, found.checkpoint_ns AS checkpoint_ns, anon_1."key" AS channel, CAST(anon_1.value AS TEXT) AS version
FROM found JOIN json_each(found.checkpoint, '$.channel_versions') AS anon_1 ON 1 = 1) AS used ON b.thread_id = used.thread_id AND b.checkpoint_ns = used.checkpoint_ns AND b.channel = used.channel AND b.version = used.version
UNION ALL
SELECT found.thread_id, found.checkpoint_ns, found.checkpoint_id AS checkpoint_id, 4 AS kind, found.checkpoint AS text_1, found.parent_checkpoint_id AS text_2, found.metadata AS text_3, found.rank AS number, found.type AS tag, found.exact AS data
FROM found;

-- get_tuple, incremental: the latest
WITH found AS
(SELECT checkpoints.thread_id AS thread_id, checkpoints.checkpoint_ns AS checkpoint_ns, checkpoints.checkpoint_id AS checkpoint_id, checkpoints.parent_checkpoint_id AS parent_checkpoint_id, checkpoints.checkpoint AS checkpoint, checkpoints.metadata AS metadata, checkpoints.type AS type, checkpoints.exact AS exact, 0 AS rank
FROM checkpoints
WHERE checkpoints.thread_id = ? AND checkpoints.checkpoint_ns = ?
ORDER BY checkpoints.checkpoint_id DESC
LIMIT 1 OFFSET ?),
used AS
(SELECT DISTINCT found.thread_id AS thread_id, found.checkpoint_ns AS checkpoint_ns, anon_1."key" AS channel, CAST(anon_1.value AS TEXT) AS version
FROM found JOIN json_each(found.checkpoint, '$.channel_versions') AS anon_1 ON 1 = 1)
SELECT w.thread_id, w.checkpoint_ns, w.checkpoint_id AS checkpoint_id, 0 AS kind, w.channel AS text_1, w.task_path AS text_2, w.task_id AS text_3, w.idx AS number, w.type AS tag, w.blob AS data
FROM checkpoint_writes AS w JOIN found ON w.thread_id = found.thread_id AND w.checkpoint_ns = found.checkpoint_ns AND w.checkpoint_id = found.checkpoint_id
UNION ALL
SELECT w.thread_id, w.checkpoint_ns, w.checkpoint_id AS checkpoint_id, 1 AS kind, w.channel AS text_1, w.task_path AS text_2, w.task_id AS text_3, w.idx AS number, w.type AS tag, w.blob AS data
FROM checkpoint_writes AS w JOIN found ON w.thread_id = found.thread_id AND w.checkpoint_ns = found.checkpoint_ns AND w.checkpoint_id = found.parent_checkpoint_id
WHERE w.channel = ? AND coalesce(CAST(JSON_EXTRACT(found.checkpoint, ?) AS INTEGER), ?) < 4
UNION ALL
SELECT b.thread_id, b.checkpoint_ns, '' AS checkpoint_id, 2 AS kind, b.channel AS text_1, b.version AS text_2, b.chain AS text_3, b.position AS number, b.type AS tag, b.blob AS data
FROM checkpoint_blobs AS b JOIN used ON b.thread_id = used.thread_id AND b.checkpoint_ns = used.checkpoint_ns AND b.channel = used.channel AND b.version = used.version
UNION ALL
SELECT checkpoint_deltas.thread_id, checkpoint_deltas.checkpoint_ns, '' AS checkpoint_id, 3 AS kind, checkpoint_deltas.channel AS text_1, '' AS text_2, checkpoint_deltas.chain AS text_3, checkpoint_deltas.position AS number, '' AS tag, checkpoint_deltas.data AS data
FROM used JOIN checkpoint_blobs AS b ON b.thread_id = used.thread_id AND b.checkpoint_ns = used.checkpoint_ns AND b.channel = used.channel AND b.version = used.version JOIN checkpoint_deltas ON checkpoint_deltas.thread_id = b.thread_id AND checkpoint_deltas.checkpoint_ns = b.checkpoint_ns AND checkpoint_deltas.channel = b.channel AND checkpoint_deltas.chain = b.chain AND checkpoint_deltas.position <= b.position
WHERE NOT (b.chain = ? AND b.position = ? OR b.chain = ? AND b.position = ? OR b.chain = ? AND b.position = ? OR b.chain = ? AND b.position = ?)
UNION ALL
SELECT found.thread_id, found.checkpoint_ns, found.checkpoint_id AS checkpoint_id, 4 AS kind, found.checkpoint AS text_1, found.parent_checkpoint_id AS text_2, found.metadata AS text_3, found.rank AS number, found.type AS tag, found.exact AS data
FROM found;

-- list: a page of a namespace
WITH found AS
(SELECT newest.thread_id AS thread_id, newest.checkpoint_ns AS checkpoint_ns, newest.checkpoint_id AS checkpoint_id, newest.parent_checkpoint_id AS parent_checkpoint_id, newest.checkpoint AS checkpoint, newest.metadata AS metadata, newest.type AS type, newest.exact AS exact, row_number() OVER (ORDER BY newest.checkpoint_id DESC) AS rank
FROM (SELECT checkpoints.thread_id AS thread_id, checkpoints.checkpoint_ns AS checkpoint_ns, checkpoints.checkpoint_id AS checkpoint_id, checkpoints.parent_checkpoint_id AS parent_checkpoint_id, checkpoints.checkpoint AS checkpoint, checkpoints.metadata AS metadata, checkpoints.type AS type, checkpoints.exact AS exact
FROM checkpoints
WHERE checkpoints.thread_id = ? AND checkpoints.checkpoint_ns = ? AND checkpoints.checkpoint_id < ?
ORDER BY checkpoints.checkpoint_id DESC
LIMIT 10 OFFSET ?) AS newest)
SELECT w.thread_id, w.checkpoint_ns, w.checkpoint_id AS checkpoint_id, 0 AS kind, w.channel AS text_1, w.task_path AS text_2, w.task_id AS text_3, w.idx AS number, w.type AS tag, w.blob AS data
FROM checkpoint_writes AS w JOIN found ON w.thread_id = found.thread_id AND w.checkpoint_ns = found.checkpoint_ns AND w.checkpoint_id = found.checkpoint_id
UNION ALL
SELECT w.thread_id, w.checkpoint_ns, w.checkpoint_id AS checkpoint_id, 1 AS kind, w.channel AS text_1, w.task_path AS text_2, w.task_id AS text_3, w.idx AS number, w.type AS tag, w.blob AS data
FROM checkpoint_writes AS w JOIN found ON w.thread_id = found.thread_id AND w.checkpoint_ns = found.checkpoint_ns AND w.checkpoint_id = found.parent_checkpoint_id
WHERE w.channel = ? AND coalesce(CAST(JSON_EXTRACT(found.checkpoint, ?) AS INTEGER), ?) < 4
UNION ALL
SELECT b.thread_id, b.checkpoint_ns, '' AS checkpoint_id, 2 AS kind, b.channel AS text_1, b.version AS text_2, b.chain AS text_3, b.position AS number, b.type AS tag, b.blob AS data
FROM checkpoint_blobs AS b JOIN (SELECT DISTINCT found.thread_id AS thread_id, found.checkpoint_ns AS checkpoint_ns, anon_1."key" AS channel, CAST(anon_1.value AS TEXT) AS version
FROM found JOIN json_each(found.checkpoint, '$.channel_versions') AS anon_1 ON 1 = 1) AS used ON b.thread_id = used.thread_id AND b.checkpoint_ns = used.checkpoint_ns AND b.channel = used.channel AND b.version = used.version
UNION ALL
SELECT found.thread_id, found.checkpoint_ns, found.checkpoint_id AS checkpoint_id, 4 AS kind, found.checkpoint AS text_1, found.parent_checkpoint_id AS text_2, found.metadata AS text_3, found.rank AS number, found.type AS tag, found.exact AS data
FROM found;

-- store: get
SELECT store.prefix, store."key", store.value AS value, store.created_at, store.updated_at, store.ttl_minutes
FROM store
WHERE store.prefix = ? AND store."key" = ? AND (store.expires_at IS NULL OR store.expires_at > STRFTIME('%Y-%m-%d %H:%M:%f000', 'now'));

-- store: get several
SELECT store.prefix, store."key", store.value AS value, store.created_at, store.updated_at, store.ttl_minutes
FROM store
WHERE (store.prefix, store."key") IN (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?)) AND (store.expires_at IS NULL OR store.expires_at > STRFTIME('%Y-%m-%d %H:%M:%f000', 'now'));

-- store: put two
INSERT INTO store (prefix, "key", value, created_at, updated_at, expires_at, ttl_minutes)
VALUES (?, ?, ?, STRFTIME('%Y-%m-%d %H:%M:%f000', 'now'), STRFTIME('%Y-%m-%d %H:%M:%f000', 'now'), STRFTIME('%Y-%m-%d %H:%M:%f000', 'now', (? * 60) || ' seconds'), ?), (?, ?, ?, STRFTIME('%Y-%m-%d %H:%M:%f000', 'now'), STRFTIME('%Y-%m-%d %H:%M:%f000', 'now'), STRFTIME('%Y-%m-%d %H:%M:%f000', 'now', (? * 60) || ' seconds'), ?)
ON CONFLICT (prefix, "key") DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at, expires_at = excluded.expires_at, ttl_minutes = excluded.ttl_minutes;

-- store: delete
DELETE FROM store WHERE store.prefix = ? AND store."key" = ?;

-- store: let times to live begin anew
UPDATE store SET expires_at=STRFTIME('%Y-%m-%d %H:%M:%f000', 'now', (store.ttl_minutes * 60) || ' seconds') WHERE (store.prefix, store."key") IN (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?)) AND store.ttl_minutes IS NOT NULL AND (store.expires_at IS NULL OR store.expires_at > STRFTIME('%Y-%m-%d %H:%M:%f000', 'now'));

-- store: search a namespace with a filter
SELECT store.prefix, store."key", store.value AS value, store.created_at, store.updated_at, store.ttl_minutes, found.rank
FROM (SELECT store.prefix AS prefix, store."key" AS "key", row_number() OVER (ORDER BY store.updated_at DESC, store.prefix, store."key") AS rank
FROM store
WHERE (store.expires_at IS NULL OR store.expires_at > STRFTIME('%Y-%m-%d %H:%M:%f000', 'now')) AND (store.prefix = ? OR (store.prefix >= ? AND store.prefix < ?)) AND NOT EXISTS (SELECT 1 FROM json_each(?) AS wanted WHERE NOT EXISTS (SELECT 1 FROM json_each(store.value) AS found WHERE found.key = wanted.key AND found.atom IS wanted.atom))
ORDER BY store.updated_at DESC, store.prefix, store."key"
LIMIT ? OFFSET ?) AS found JOIN store ON store.prefix = found.prefix AND store."key" = found."key";
