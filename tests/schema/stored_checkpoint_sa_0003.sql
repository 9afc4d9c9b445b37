BEGIN TRANSACTION;
CREATE TABLE checkpoint_blobs (
	thread_id TEXT NOT NULL, 
	checkpoint_ns TEXT DEFAULT '' NOT NULL, 
	channel TEXT NOT NULL, 
	version TEXT NOT NULL, 
	type TEXT NOT NULL, 
	blob BLOB, 
	PRIMARY KEY (thread_id, checkpoint_ns, channel, version)
);
INSERT INTO "checkpoint_blobs" VALUES('stored','','large','00000000000000000000000000000001.0.9497915481888163','msgpack',X'92A2C3BC00');
INSERT INTO "checkpoint_blobs" VALUES('stored','','large','00000000000000000000000000000001.0.656393899319043','msgpack',X'92A2C3BC01');
CREATE TABLE checkpoint_sa_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT checkpoint_sa_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "checkpoint_sa_version" VALUES('checkpoint_sa_0003');
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
INSERT INTO "checkpoint_writes" VALUES('stored','','1f1e55b9-2832-6a61-8000-d45a2878aae0','task',0,'large','msgpack',X'81A161C0','path');
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
INSERT INTO "checkpoints" VALUES('stored','','1f1e55b9-2829-6236-8000-e3a9be0d6b76',NULL,NULL,'{"v":4,"id":"1f1e55b9-2829-6236-8000-e3a9be0d6b76","ts":"2026-11-21T03:28:08.801117+00:00","channel_versions":{"large":"00000000000000000000000000000001.0.9497915481888163"},"versions_seen":{},"pending_sends":[],"updated_channels":null,"channel_values":{}}','{"source":"loop","step":1,"parents":{},"run_id":"run"}','run',NULL);
INSERT INTO "checkpoints" VALUES('stored','','1f1e55b9-2832-6a61-8000-d45a2878aae0','1f1e55b9-2829-6236-8000-e3a9be0d6b76',NULL,'{"v":4,"id":"1f1e55b9-2832-6a61-8000-d45a2878aae0","ts":"2026-11-21T03:28:08.805016+00:00","channel_versions":{"large":"00000000000000000000000000000001.0.656393899319043","small":"00000000000000000000000000000001.0.40675963173957796"},"versions_seen":{},"pending_sends":[],"updated_channels":null,"channel_values":{"small":"x"}}','{"source":"loop","step":1,"parents":{}}','',NULL);
CREATE INDEX ix_checkpoints_run_id ON checkpoints (run_id);
COMMIT;
