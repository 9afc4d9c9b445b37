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
INSERT INTO "checkpoint_blobs" VALUES('stored','','large','00000000000000000000000000000001.0.7906580917662498','msgpack',X'92A2C3BC00',NULL,NULL);
INSERT INTO "checkpoint_blobs" VALUES('stored','','large','00000000000000000000000000000001.0.2231944196125939','msgpack',X'92A2C3BC01',NULL,NULL);
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
INSERT INTO "checkpoint_sa_version" VALUES('checkpoint_sa_0006_from_0005');
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
INSERT INTO "checkpoint_writes" VALUES('stored','','1f1eb6e0-2740-6ba5-8000-75c3e00cda10','task',0,'large','msgpack',X'81A161C0','path');
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
INSERT INTO "checkpoints" VALUES('stored','','1f1eb6e0-2727-65d3-8000-852daff91f90',NULL,NULL,'{"v":4,"id":"1f1eb6e0-2727-65d3-8000-852daff91f90","ts":"2026-11-28T20:55:14.518137+00:00","channel_versions":{"large":"00000000000000000000000000000001.0.7906580917662498"},"versions_seen":{},"pending_sends":[],"updated_channels":null,"channel_values":{}}','{"source":"loop","step":1,"parents":{},"run_id":"run"}','run',NULL);
INSERT INTO "checkpoints" VALUES('stored','','1f1eb6e0-2740-6ba5-8000-75c3e00cda10','1f1eb6e0-2727-65d3-8000-852daff91f90',NULL,'{"v":4,"id":"1f1eb6e0-2740-6ba5-8000-75c3e00cda10","ts":"2026-11-28T20:55:14.528524+00:00","channel_versions":{"large":"00000000000000000000000000000001.0.2231944196125939","small":"00000000000000000000000000000001.0.37716516750472595"},"versions_seen":{},"pending_sends":[],"updated_channels":null,"channel_values":{"small":"x"}}','{"source":"loop","step":1,"parents":{}}','',NULL);
CREATE TABLE store (
	prefix TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	value JSON NOT NULL, 
	created_at DATETIME, 
	updated_at DATETIME, 
	expires_at DATETIME, 
	ttl_minutes INTEGER, 
	PRIMARY KEY (prefix, "key")
);
CREATE INDEX ix_checkpoints_run_id ON checkpoints (run_id);
CREATE INDEX idx_store_expires_at ON store (expires_at) WHERE expires_at IS NOT NULL;
COMMIT;
