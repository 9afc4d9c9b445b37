BEGIN TRANSACTION;
CREATE TABLE checkpoint_blobs (
	thread_id TEXT NOT NULL, 
	checkpoint_ns TEXT DEFAULT '' NOT NULL, 
	channel TEXT NOT NULL, 
	version TEXT NOT NULL, 
	type TEXT NOT NULL, 
	blob BLOB, chain TEXT, position INTEGER, 
	PRIMARY KEY (thread_id, checkpoint_ns, channel, version)
);
INSERT INTO "checkpoint_blobs" VALUES('stored','','large','00000000000000000000000000000001.0.8564900825165598','msgpack',X'92A2C3BC00',NULL,NULL);
INSERT INTO "checkpoint_blobs" VALUES('stored','','large','00000000000000000000000000000001.0.22261966454268867','msgpack',X'92A2C3BC01',NULL,NULL);
CREATE TABLE checkpoint_deltas (
	thread_id TEXT NOT NULL, 
	checkpoint_ns TEXT NOT NULL, 
	channel TEXT NOT NULL, 
	chain TEXT NOT NULL, 
	position INTEGER NOT NULL, 
	data BLOB NOT NULL, 
	PRIMARY KEY (thread_id, checkpoint_ns, channel, chain, position)
);
CREATE TABLE checkpoint_sa_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT checkpoint_sa_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "checkpoint_sa_version" VALUES('checkpoint_sa_0004');
CREATE TABLE checkpoint_writes (
	thread_id TEXT NOT NULL, 
	checkpoint_ns TEXT DEFAULT '' NOT NULL, 
	checkpoint_id TEXT NOT NULL, 
	task_id TEXT NOT NULL, 
	idx INTEGER NOT NULL, 
	channel TEXT NOT NULL, 
	type TEXT, 
	blob BLOB NOT NULL, 
	task_path TEXT NOT NULL, 
	PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id, task_id, idx)
);
INSERT INTO "checkpoint_writes" VALUES('stored','','1f1e56ca-90ab-6a6b-8000-dd070c9f694f','task',0,'large','msgpack',X'81A161C0','path');
CREATE TABLE checkpoints (
	thread_id TEXT NOT NULL, 
	checkpoint_ns TEXT DEFAULT '' NOT NULL, 
	checkpoint_id TEXT NOT NULL, 
	parent_checkpoint_id TEXT, 
	type TEXT, 
	checkpoint JSON NOT NULL, 
	metadata JSON NOT NULL, 
	run_id TEXT, 
	exact BLOB, 
	PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id)
);
INSERT INTO "checkpoints" VALUES('stored','','1f1e56ca-90a6-6e8e-8000-03a98a107093',NULL,NULL,'{"v":4,"id":"1f1e56ca-90a6-6e8e-8000-03a98a107093","ts":"2026-11-21T05:30:28.045760+00:00","channel_versions":{"large":"00000000000000000000000000000001.0.8564900825165598"},"versions_seen":{},"pending_sends":[],"updated_channels":null,"channel_values":{}}','{"source":"loop","step":1,"parents":{},"run_id":"run"}','run',NULL);
INSERT INTO "checkpoints" VALUES('stored','','1f1e56ca-90ab-6a6b-8000-dd070c9f694f','1f1e56ca-90a6-6e8e-8000-03a98a107093',NULL,'{"v":4,"id":"1f1e56ca-90ab-6a6b-8000-dd070c9f694f","ts":"2026-11-21T05:30:28.047716+00:00","channel_versions":{"large":"00000000000000000000000000000001.0.22261966454268867","small":"00000000000000000000000000000001.0.9139151961273545"},"versions_seen":{},"pending_sends":[],"updated_channels":null,"channel_values":{"small":"x"}}','{"source":"loop","step":1,"parents":{}}','',NULL);
CREATE INDEX ix_checkpoints_run_id ON checkpoints (run_id);
COMMIT;
