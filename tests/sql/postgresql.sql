-- put: two values
WITH stored_blobs AS
(INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
SELECT CAST(%(all_thread_id)s::VARCHAR AS TEXT) AS anon_1, CAST(%(all_checkpoint_ns)s::VARCHAR AS TEXT) AS anon_2, CAST(%(channel_0)s::VARCHAR AS TEXT) AS anon_3, CAST(%(version_0)s::VARCHAR AS TEXT) AS anon_4, CAST(%(type_0)s::VARCHAR AS TEXT) AS anon_5, CAST(%(blob_0)s AS BYTEA) AS anon_6
UNION ALL
SELECT CAST(%(all_thread_id)s::VARCHAR AS TEXT) AS anon_7, CAST(%(all_checkpoint_ns)s::VARCHAR AS TEXT) AS anon_8, CAST(%(channel_1)s::VARCHAR AS TEXT) AS anon_9, CAST(%(version_1)s::VARCHAR AS TEXT) AS anon_10, CAST(%(type_1)s::VARCHAR AS TEXT) AS anon_11, CAST(%(blob_1)s AS BYTEA) AS anon_12
ON CONFLICT (thread_id, checkpoint_ns, channel, version) DO NOTHING)
INSERT INTO checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata, run_id, exact)
VALUES (%(thread_id)s::VARCHAR, %(checkpoint_ns)s::VARCHAR, %(checkpoint_id)s::VARCHAR, %(parent_checkpoint_id)s::VARCHAR, %(type)s::VARCHAR, CAST(%(checkpoint_json)s::VARCHAR AS JSONB), CAST(%(metadata_json)s::VARCHAR AS JSONB), %(run_id)s::VARCHAR, %(exact)s)
ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id) DO UPDATE SET type = excluded.type, checkpoint = excluded.checkpoint, metadata = excluded.metadata, run_id = excluded.run_id, exact = excluded.exact;

-- put, incremental: one value whole, one as a delta
WITH stored_deltas AS
(INSERT INTO checkpoint_deltas (thread_id, checkpoint_ns, channel, chain, position, data)
SELECT CAST(%(all_thread_id)s::VARCHAR AS TEXT) AS anon_1, CAST(%(all_checkpoint_ns)s::VARCHAR AS TEXT) AS anon_2, CAST(%(chained_channel_0)s::VARCHAR AS TEXT) AS anon_3, CAST(%(chained_chain_0)s::VARCHAR AS TEXT) AS anon_4, CASE WHEN (CAST(%(chained_position_0)s::INTEGER AS INTEGER) = 0) THEN 0 ELSE (SELECT base.position + 1 AS anon_6
FROM checkpoint_deltas AS head JOIN checkpoint_blobs AS base ON base.thread_id = head.thread_id AND base.checkpoint_ns = head.checkpoint_ns AND base.channel = head.channel AND base.chain = head.chain
WHERE head.position = 0 AND head.thread_id = CAST(%(all_thread_id)s::VARCHAR AS TEXT) AND head.checkpoint_ns = CAST(%(all_checkpoint_ns)s::VARCHAR AS TEXT) AND head.channel = CAST(%(chained_channel_0)s::VARCHAR AS TEXT) AND head.chain = CAST(%(chained_chain_0)s::VARCHAR AS TEXT) AND base.version = %(chained_base_version_0)s::VARCHAR AND base.blob = %(chained_base_blob_0)s FOR SHARE) END AS anon_5, CAST(%(chained_data_0)s AS BYTEA) AS anon_7),
stored_chained AS
(INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob, chain, position)
SELECT CAST(%(all_thread_id)s::VARCHAR AS TEXT) AS anon_8, CAST(%(all_checkpoint_ns)s::VARCHAR AS TEXT) AS anon_9, CAST(%(chained_channel_0)s::VARCHAR AS TEXT) AS anon_10, CAST(%(chained_version_0)s::VARCHAR AS TEXT) AS anon_11, CAST(%(chained_type_0)s::VARCHAR AS TEXT) AS anon_12, CAST(%(chained_blob_0)s AS BYTEA) AS anon_13, CAST(%(chained_chain_0)s::VARCHAR AS TEXT) AS anon_14, CAST(%(chained_position_0)s::INTEGER AS INTEGER) AS anon_15),
stored_blobs AS
(INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
SELECT CAST(%(all_thread_id)s::VARCHAR AS TEXT) AS anon_16, CAST(%(all_checkpoint_ns)s::VARCHAR AS TEXT) AS anon_17, CAST(%(channel_0)s::VARCHAR AS TEXT) AS anon_18, CAST(%(version_0)s::VARCHAR AS TEXT) AS anon_19, CAST(%(type_0)s::VARCHAR AS TEXT) AS anon_20, CAST(%(blob_0)s AS BYTEA) AS anon_21
ON CONFLICT (thread_id, checkpoint_ns, channel, version) DO NOTHING)
INSERT INTO checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata, run_id, exact)
VALUES (%(thread_id)s::VARCHAR, %(checkpoint_ns)s::VARCHAR, %(checkpoint_id)s::VARCHAR, %(parent_checkpoint_id)s::VARCHAR, %(type)s::VARCHAR, CAST(%(checkpoint_json)s::VARCHAR AS JSONB), CAST(%(metadata_json)s::VARCHAR AS JSONB), %(run_id)s::VARCHAR, %(exact)s)
ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id) DO UPDATE SET type = excluded.type, checkpoint = excluded.checkpoint, metadata = excluded.metadata, run_id = excluded.run_id, exact = excluded.exact;

-- put_writes: two ordinary ones
INSERT INTO checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob, task_path)
SELECT CAST(%(all_thread_id)s::VARCHAR AS TEXT) AS anon_1, CAST(%(all_checkpoint_ns)s::VARCHAR AS TEXT) AS anon_2, CAST(%(all_checkpoint_id)s::VARCHAR AS TEXT) AS anon_3, CAST(%(all_task_id)s::VARCHAR AS TEXT) AS anon_4, CAST(%(idx_0)s::INTEGER AS INTEGER) AS anon_5, CAST(%(channel_0)s::VARCHAR AS TEXT) AS anon_6, CAST(%(type_0)s::VARCHAR AS TEXT) AS anon_7, CAST(%(blob_0)s AS BYTEA) AS anon_8, CAST(%(all_task_path)s::VARCHAR AS TEXT) AS anon_9
UNION ALL
SELECT CAST(%(all_thread_id)s::VARCHAR AS TEXT) AS anon_10, CAST(%(all_checkpoint_ns)s::VARCHAR AS TEXT) AS anon_11, CAST(%(all_checkpoint_id)s::VARCHAR AS TEXT) AS anon_12, CAST(%(all_task_id)s::VARCHAR AS TEXT) AS anon_13, CAST(%(idx_1)s::INTEGER AS INTEGER) AS anon_14, CAST(%(channel_1)s::VARCHAR AS TEXT) AS anon_15, CAST(%(type_1)s::VARCHAR AS TEXT) AS anon_16, CAST(%(blob_1)s AS BYTEA) AS anon_17, CAST(%(all_task_path)s::VARCHAR AS TEXT) AS anon_18
ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id, task_id, idx) DO NOTHING;

-- put_writes: two special ones
INSERT INTO checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob, task_path)
SELECT CAST(%(all_thread_id)s::VARCHAR AS TEXT) AS anon_1, CAST(%(all_checkpoint_ns)s::VARCHAR AS TEXT) AS anon_2, CAST(%(all_checkpoint_id)s::VARCHAR AS TEXT) AS anon_3, CAST(%(all_task_id)s::VARCHAR AS TEXT) AS anon_4, CAST(%(idx_0)s::INTEGER AS INTEGER) AS anon_5, CAST(%(channel_0)s::VARCHAR AS TEXT) AS anon_6, CAST(%(type_0)s::VARCHAR AS TEXT) AS anon_7, CAST(%(blob_0)s AS BYTEA) AS anon_8, CAST(%(all_task_path)s::VARCHAR AS TEXT) AS anon_9
UNION ALL
SELECT CAST(%(all_thread_id)s::VARCHAR AS TEXT) AS anon_10, CAST(%(all_checkpoint_ns)s::VARCHAR AS TEXT) AS anon_11, CAST(%(all_checkpoint_id)s::VARCHAR AS TEXT) AS anon_12, CAST(%(all_task_id)s::VARCHAR AS TEXT) AS anon_13, CAST(%(idx_1)s::INTEGER AS INTEGER) AS anon_14, CAST(%(channel_1)s::VARCHAR AS TEXT) AS anon_15, CAST(%(type_1)s::VARCHAR AS TEXT) AS anon_16, CAST(%(blob_1)s AS BYTEA) AS anon_17, CAST(%(all_task_path)s::VARCHAR AS TEXT) AS anon_18
ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id, task_id, idx) DO UPDATE SET channel = excluded.channel, type = excluded.type, blob = excluded.blob, task_path = excluded.task_path;

-- get_tuple: the latest
WITH found AS
(SELECT checkpoints.thread_id AS thread_id, checkpoints.checkpoint_ns AS checkpoint_ns, checkpoints.checkpoint_id AS checkpoint_id, checkpoints.parent_checkpoint_id AS parent_checkpoint_id, checkpoints.checkpoint AS checkpoint, checkpoints.metadata AS metadata, checkpoints.type AS type, checkpoints.exact AS exact, 0 AS rank
FROM checkpoints
WHERE checkpoints.thread_id = %(thread_id)s::VARCHAR AND checkpoints.checkpoint_ns = %(checkpoint_ns)s::VARCHAR
ORDER BY checkpoints.checkpoint_id DESC
LIMIT 1)
SELECT w.thread_id, w.checkpoint_ns, w.checkpoint_id AS checkpoint_id, 0 AS kind, w.channel AS text_1, w.task_path AS text_2, w.task_id AS text_3, w.idx AS number, w.type AS tag, w.blob AS data
FROM checkpoint_writes AS w JOIN found ON w.thread_id = found.thread_id AND w.checkpoint_ns = found.checkpoint_ns AND w.checkpoint_id = found.checkpoint_id
UNION ALL
SELECT w.thread_id, w.checkpoint_ns, w.checkpoint_id AS checkpoint_id, 1 AS kind, w.channel AS text_1, w.task_path AS text_2, w.task_id AS text_3, w.idx AS number, w.type AS tag, w.blob AS data
FROM checkpoint_writes AS w JOIN found ON w.thread_id = found.thread_id AND w.checkpoint_ns = found.checkpoint_ns AND w.checkpoint_id = found.parent_checkpoint_id
WHERE w.channel = %(channel_1)s::VARCHAR AND coalesce(CAST((found.checkpoint ->> %(checkpoint_1)s::TEXT) AS INTEGER), %(coalesce_1)s::INTEGER) < 4
UNION ALL
SELECT one.thread_id, one.checkpoint_ns, '' AS checkpoint_id, 2 AS kind, one.channel AS text_1, one.version AS text_2, one.chain AS text_3, one.position AS number, one.type AS tag, one.blob AS data
FROM (SELECT DISTINCT found.thread_id AS thread_id, found.checkpoint_ns AS checkpoint_ns, anon_1.key AS channel, CAST(anon_1.value AS TEXT) AS version
FROM found JOIN jsonb_each_text(found.checkpoint -> 'channel_versions') AS anon_1 ON true) AS used JOIN LATERAL (SELECT b.thread_id AS thread_id, b.checkpoint_ns AS checkpoint_ns, b.channel AS channel, b.version AS version, b.type AS type, b.blob AS blob, b.chain AS chain, b.position AS position
FROM checkpoint_blobs AS b
WHERE b.thread_id = used.thread_id AND b.checkpoint_ns = used.checkpoint_ns AND b.channel = used.channel AND b.version = used.version
LIMIT 1) AS one ON true
UNION ALL
SELECT found.thread_id, found.checkpoint_ns, found.checkpoint_id AS checkpoint_id, 4 AS kind, CAST(found.checkpoint AS TEXT) AS text_1, found.parent_checkpoint_id AS text_2, CAST(found.metadata AS TEXT) AS text_3, found.rank AS number, found.type AS tag, found.exact AS data
FROM found;

-- get_tuple: one
WITH found AS
(SELECT checkpoints.thread_id AS thread_id, checkpoints.checkpoint_ns AS checkpoint_ns, checkpoints.checkpoint_id AS checkpoint_id, checkpoints.parent_checkpoint_id AS parent_checkpoint_id, checkpoints.checkpoint AS checkpoint, checkpoints.metadata AS metadata, checkpoints.type AS type, checkpoints.exact AS exact, 0 AS rank
FROM checkpoints
WHERE checkpoints.thread_id = %(thread_id)s::VARCHAR AND checkpoints.checkpoint_ns = %(checkpoint_ns)s::VARCHAR AND checkpoints.checkpoint_id = %(checkpoint_id)s::VARCHAR)
SELECT w.thread_id, w.checkpoint_ns, w.checkpoint_id AS checkpoint_id, 0 AS kind, w.channel AS text_1, w.task_path AS text_2, w.task_id AS text_3, w.idx AS number, w.type AS tag, w.blob AS data
FROM checkpoint_writes AS w JOIN found ON w.thread_id = found.thread_id AND w.checkpoint_ns = found.checkpoint_ns AND w.checkpoint_id = found.checkpoint_id
UNION ALL
SELECT w.thread_id, w.checkpoint_ns, w.checkpoint_id AS checkpoint_id, 1 AS kind, w.channel AS text_1, w.task_path AS text_2, w.task_id AS text_3, w.idx AS number, w.type AS tag, w.blob AS data
FROM checkpoint_writes AS w JOIN found ON w.thread_id = found.thread_id AND w.checkpoint_ns = found.checkpoint_ns AND w.checkpoint_id = found.parent_checkpoint_id
WHERE w.channel = %(channel_1)s::VARCHAR AND coalesce(CAST((found.checkpoint ->> %(checkpoint_1)s::TEXT) AS INTEGER), %(coalesce_1)s::INTEGER) < 4
UNION ALL
SELECT one.thread_id, one.checkpoint_ns, '' AS checkpoint_id, 2 AS kind, one.channel AS text_1, one.version AS text_2, one.chain AS text_3, one.position AS number, one.type AS tag, one.blob AS data
FROM (SELECT DISTINCT found.thread_id AS thread_id, found.checkpoint_ns AS checkpoint_ns, anon_1.key AS channel, CAST(anon_1.value AS TEXT) AS version
FROM found JOIN jsonb_each_text(found.checkpoint -> 'channel_versions') AS anon_1 ON true) AS used JOIN LATERAL (SELECT b.thread_id AS thread_id, b.checkpoint_ns AS checkpoint_ns, b.channel AS channel, b.version AS version, b.type AS type, b.blob AS blob, b.chain AS chain, b.position AS position
FROM checkpoint_blobs AS b
WHERE b.thread_id = used.thread_id AND b.checkpoint_ns = used.checkpoint_ns AND b.channel = used.channel AND b.version = used.version
LIMIT 1) AS one ON true
UNION ALL
SELECT found.thread_id, found.checkpoint_ns, found.checkpoint_id AS checkpoint_id, 4 AS kind, CAST(found.checkpoint AS TEXT) AS text_1, found.parent_checkpoint_id AS text_2, CAST(found.metadata AS TEXT) AS text_3, found.rank AS number, found.type AS tag, found.exact AS data
FROM found;

-- get_tuple, incremental: the latest
WITH found AS
(SELECT checkpoints.thread_id AS thread_id, checkpoints.checkpoint_ns AS checkpoint_ns, checkpoints.checkpoint_id AS checkpoint_id, checkpoints.parent_checkpoint_id AS parent_checkpoint_id, checkpoints.checkpoint AS checkpoint, checkpoints.metadata AS metadata, checkpoints.type AS type, checkpoints.exact AS exact, 0 AS rank
FROM checkpoints
WHERE checkpoints.thread_id = %(thread_id)s::VARCHAR AND checkpoints.checkpoint_ns = %(checkpoint_ns)s::VARCHAR
ORDER BY checkpoints.checkpoint_id DESC
LIMIT 1),
value AS
(SELECT one.thread_id AS thread_id, one.checkpoint_ns AS checkpoint_ns, one.channel AS channel, one.version AS version, one.type AS type, one.blob AS blob, one.chain AS chain, one.position AS position
FROM (SELECT DISTINCT found.thread_id AS thread_id, found.checkpoint_ns AS checkpoint_ns, anon_1.key AS channel, CAST(anon_1.value AS TEXT) AS version
FROM found JOIN jsonb_each_text(found.checkpoint -> 'channel_versions') AS anon_1 ON true) AS used JOIN LATERAL (SELECT b.thread_id AS thread_id, b.checkpoint_ns AS checkpoint_ns, b.channel AS channel, b.version AS version, b.type AS type, b.blob AS blob, b.chain AS chain, b.position AS position
FROM checkpoint_blobs AS b
WHERE b.thread_id = used.thread_id AND b.checkpoint_ns = used.checkpoint_ns AND b.channel = used.channel AND b.version = used.version
LIMIT 1) AS one ON true)
SELECT w.thread_id, w.checkpoint_ns, w.checkpoint_id AS checkpoint_id, 0 AS kind, w.channel AS text_1, w.task_path AS text_2, w.task_id AS text_3, w.idx AS number, w.type AS tag, w.blob AS data
FROM checkpoint_writes AS w JOIN found ON w.thread_id = found.thread_id AND w.checkpoint_ns = found.checkpoint_ns AND w.checkpoint_id = found.checkpoint_id
UNION ALL
SELECT w.thread_id, w.checkpoint_ns, w.checkpoint_id AS checkpoint_id, 1 AS kind, w.channel AS text_1, w.task_path AS text_2, w.task_id AS text_3, w.idx AS number, w.type AS tag, w.blob AS data
FROM checkpoint_writes AS w JOIN found ON w.thread_id = found.thread_id AND w.checkpoint_ns = found.checkpoint_ns AND w.checkpoint_id = found.parent_checkpoint_id
WHERE w.channel = %(channel_1)s::VARCHAR AND coalesce(CAST((found.checkpoint ->> %(checkpoint_1)s::TEXT) AS INTEGER), %(coalesce_1)s::INTEGER) < 4
UNION ALL
SELECT value.thread_id, value.checkpoint_ns, '' AS checkpoint_id, 2 AS kind, value.channel AS text_1, value.version AS text_2, value.chain AS text_3, value.position AS number, value.type AS tag, value.blob AS data
FROM value
UNION ALL
SELECT rows.thread_id, rows.checkpoint_ns, '' AS checkpoint_id, 3 AS kind, rows.channel AS text_1, '' AS text_2, rows.chain AS text_3, rows.position AS number, '' AS tag, rows.data AS data
FROM value JOIN LATERAL (SELECT d.thread_id AS thread_id, d.checkpoint_ns AS checkpoint_ns, d.channel AS channel, d.chain AS chain, d.position AS position, d.data AS data
FROM checkpoint_deltas AS d
WHERE d.thread_id = value.thread_id AND d.checkpoint_ns = value.checkpoint_ns AND d.channel = value.channel AND d.chain = value.chain AND d.position <= value.position
LIMIT 256) AS rows ON true
WHERE NOT (value.chain = %(cached_chain_0)s::VARCHAR AND value.position = %(cached_position_0)s::INTEGER OR value.chain = %(cached_chain_1)s::VARCHAR AND value.position = %(cached_position_1)s::INTEGER OR value.chain = %(cached_chain_2)s::VARCHAR AND value.position = %(cached_position_2)s::INTEGER OR value.chain = %(cached_chain_3)s::VARCHAR AND value.position = %(cached_position_3)s::INTEGER)
UNION ALL
SELECT found.thread_id, found.checkpoint_ns, found.checkpoint_id AS checkpoint_id, 4 AS kind, CAST(found.checkpoint AS TEXT) AS text_1, found.parent_checkpoint_id AS text_2, CAST(found.metadata AS TEXT) AS text_3, found.rank AS number, found.type AS tag, found.exact AS data
FROM found;

-- list: a page of a namespace
WITH found AS
(SELECT newest.thread_id AS thread_id, newest.checkpoint_ns AS checkpoint_ns, newest.checkpoint_id AS checkpoint_id, newest.parent_checkpoint_id AS parent_checkpoint_id, newest.checkpoint AS checkpoint, newest.metadata AS metadata, newest.type AS type, newest.exact AS exact, row_number() OVER (ORDER BY newest.checkpoint_id DESC) AS rank
FROM (SELECT checkpoints.thread_id AS thread_id, checkpoints.checkpoint_ns AS checkpoint_ns, checkpoints.checkpoint_id AS checkpoint_id, checkpoints.parent_checkpoint_id AS parent_checkpoint_id, checkpoints.checkpoint AS checkpoint, checkpoints.metadata AS metadata, checkpoints.type AS type, checkpoints.exact AS exact
FROM checkpoints
WHERE checkpoints.thread_id = %(thread_id)s::VARCHAR AND checkpoints.checkpoint_ns = %(checkpoint_ns)s::VARCHAR AND checkpoints.checkpoint_id < %(after_id)s::VARCHAR
ORDER BY checkpoints.checkpoint_id DESC
LIMIT 10) AS newest)
SELECT w.thread_id, w.checkpoint_ns, w.checkpoint_id AS checkpoint_id, 0 AS kind, w.channel AS text_1, w.task_path AS text_2, w.task_id AS text_3, w.idx AS number, w.type AS tag, w.blob AS data
FROM checkpoint_writes AS w JOIN found ON w.thread_id = found.thread_id AND w.checkpoint_ns = found.checkpoint_ns AND w.checkpoint_id = found.checkpoint_id
UNION ALL
SELECT w.thread_id, w.checkpoint_ns, w.checkpoint_id AS checkpoint_id, 1 AS kind, w.channel AS text_1, w.task_path AS text_2, w.task_id AS text_3, w.idx AS number, w.type AS tag, w.blob AS data
FROM checkpoint_writes AS w JOIN found ON w.thread_id = found.thread_id AND w.checkpoint_ns = found.checkpoint_ns AND w.checkpoint_id = found.parent_checkpoint_id
WHERE w.channel = %(channel_1)s::VARCHAR AND coalesce(CAST((found.checkpoint ->> %(checkpoint_1)s::TEXT) AS INTEGER), %(coalesce_1)s::INTEGER) < 4
UNION ALL
SELECT one.thread_id, one.checkpoint_ns, '' AS checkpoint_id, 2 AS kind, one.channel AS text_1, one.version AS text_2, one.chain AS text_3, one.position AS number, one.type AS tag, one.blob AS data
FROM (SELECT DISTINCT found.thread_id AS thread_id, found.checkpoint_ns AS checkpoint_ns, anon_1.key AS channel, CAST(anon_1.value AS TEXT) AS version
FROM found JOIN jsonb_each_text(found.checkpoint -> 'channel_versions') AS anon_1 ON true) AS used JOIN LATERAL (SELECT b.thread_id AS thread_id, b.checkpoint_ns AS checkpoint_ns, b.channel AS channel, b.version AS version, b.type AS type, b.blob AS blob, b.chain AS chain, b.position AS position
FROM checkpoint_blobs AS b
WHERE b.thread_id = used.thread_id AND b.checkpoint_ns = used.checkpoint_ns AND b.channel = used.channel AND b.version = used.version
LIMIT 1) AS one ON true
UNION ALL
SELECT found.thread_id, found.checkpoint_ns, found.checkpoint_id AS checkpoint_id, 4 AS kind, CAST(found.checkpoint AS TEXT) AS text_1, found.parent_checkpoint_id AS text_2, CAST(found.metadata AS TEXT) AS text_3, found.rank AS number, found.type AS tag, found.exact AS data
FROM found;

-- store: get
SELECT store.prefix, store.key, CAST(store.value AS TEXT) AS value, store.created_at, store.updated_at, store.ttl_minutes
FROM store
WHERE store.prefix = %(prefix)s::VARCHAR AND store.key = %(key)s::VARCHAR AND (store.expires_at IS NULL OR store.expires_at > CURRENT_TIMESTAMP);

-- store: get several
SELECT store.prefix, store.key, CAST(store.value AS TEXT) AS value, store.created_at, store.updated_at, store.ttl_minutes
FROM store
WHERE (store.prefix, store.key) IN (SELECT item ->> 0, item ->> 1 FROM json_array_elements(CAST(%(keys)s::VARCHAR AS JSON)) AS item) AND (store.expires_at IS NULL OR store.expires_at > CURRENT_TIMESTAMP);

-- store: put two
INSERT INTO store (prefix, key, value, created_at, updated_at, expires_at, ttl_minutes)
VALUES (%(prefix_0)s::VARCHAR, %(key_0)s::VARCHAR, CAST(%(value_0)s::VARCHAR AS JSONB), CURRENT_TIMESTAMP, CURRENT_TIMESTAMP, (CURRENT_TIMESTAMP + CAST(%(ttl_0)s AS FLOAT) * INTERVAL '1' MINUTE), %(ttl_minutes_0)s::INTEGER), (%(prefix_1)s::VARCHAR, %(key_1)s::VARCHAR, CAST(%(value_1)s::VARCHAR AS JSONB), CURRENT_TIMESTAMP, CURRENT_TIMESTAMP, (CURRENT_TIMESTAMP + CAST(%(ttl_1)s AS FLOAT) * INTERVAL '1' MINUTE), %(ttl_minutes_1)s::INTEGER)
ON CONFLICT (prefix, key) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at, expires_at = excluded.expires_at, ttl_minutes = excluded.ttl_minutes;

-- store: put several
INSERT INTO store (prefix, key, value, created_at, updated_at, expires_at, ttl_minutes)
SELECT record.prefix, record.key, CAST(record.value AS JSONB) AS anon_1, CURRENT_TIMESTAMP AS anon_2, CURRENT_TIMESTAMP AS anon_3, (CURRENT_TIMESTAMP + record.ttl * INTERVAL '1' MINUTE) AS anon_4, record.ttl_minutes
FROM json_to_recordset(CAST(%(records)s::VARCHAR AS JSON)) AS record(prefix TEXT, key TEXT, value TEXT, ttl FLOAT, ttl_minutes INTEGER)
ON CONFLICT (prefix, key) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at, expires_at = excluded.expires_at, ttl_minutes = excluded.ttl_minutes;

-- store: delete
DELETE FROM store WHERE store.prefix = %(prefix)s::VARCHAR AND store.key = %(key)s::VARCHAR;

-- store: let times to live begin anew
UPDATE store SET expires_at=(CURRENT_TIMESTAMP + store.ttl_minutes * INTERVAL '1' MINUTE) WHERE (store.prefix, store.key) IN (SELECT listed.prefix, listed.key
FROM store AS listed
WHERE (listed.prefix, listed.key) IN (SELECT item ->> 0, item ->> 1 FROM json_array_elements(CAST(%(keys)s::VARCHAR AS JSON)) AS item)
ORDER BY listed.prefix COLLATE "C", listed.key COLLATE "C" FOR UPDATE SKIP LOCKED) AND store.ttl_minutes IS NOT NULL AND (store.expires_at IS NULL OR store.expires_at > CURRENT_TIMESTAMP);

-- store: search a namespace with a filter
SELECT store.prefix, store.key, CAST(store.value AS TEXT) AS value, store.created_at, store.updated_at, store.ttl_minutes, found.rank
FROM (SELECT store.prefix AS prefix, store.key AS key, row_number() OVER (ORDER BY store.updated_at DESC, store.prefix, store.key) AS rank
FROM store
WHERE (store.expires_at IS NULL OR store.expires_at > CURRENT_TIMESTAMP) AND (store.prefix = %(prefix)s::VARCHAR OR (store.prefix ~>=~ %(low)s::VARCHAR AND store.prefix ~<~ %(high)s::VARCHAR)) AND store.value @> CAST(%(filter_json)s::VARCHAR AS JSONB)
ORDER BY store.updated_at DESC, store.prefix, store.key
LIMIT %(size)s::BIGINT OFFSET %(skip)s::BIGINT) AS found JOIN store ON store.prefix = found.prefix AND store.key = found.key;
