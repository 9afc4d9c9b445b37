-- Partition the tables of a store on PostgreSQL 14 or later by hash of thread_id.
--
-- For a store at this release's revision (`checkpoint-sa verify`), with its writers stopped:
--
--     psql -v ON_ERROR_STOP=1 --single-transaction -f partitioned.sql
--
-- Every row is copied; the old tables are dropped at the end. Sixteen partitions: change the loop
-- before the first run, since another number means to copy everything again. Privileges and
-- policies of the old tables are not copied: grant them again (docs/security.md).

DO $$
DECLARE
    partitions CONSTANT integer := 16;
    name text;
    primary_key text;
BEGIN
    FOREACH name IN ARRAY ARRAY[
        'checkpoints', 'checkpoint_blobs', 'checkpoint_deltas', 'checkpoint_writes'
    ] LOOP
        SELECT pg_get_constraintdef(oid) INTO STRICT primary_key
            FROM pg_constraint WHERE conrelid = name::regclass AND contype = 'p';
        EXECUTE format('ALTER TABLE %I RENAME TO %I', name, name || '_plain');
        EXECUTE format(
            'CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING STORAGE INCLUDING COMPRESSION)'
            ' PARTITION BY HASH (thread_id)', name, name || '_plain');
        FOR remainder IN 0 .. partitions - 1 LOOP
            EXECUTE format(
                'CREATE TABLE %I PARTITION OF %I FOR VALUES WITH (MODULUS %s, REMAINDER %s)',
                name || '_' || remainder, name, partitions, remainder);
        END LOOP;
        EXECUTE format('INSERT INTO %I SELECT * FROM %I', name, name || '_plain');
        EXECUTE format('DROP TABLE %I', name || '_plain');
        EXECUTE format('ALTER TABLE %I ADD CONSTRAINT %I %s', name, name || '_pkey', primary_key);
    END LOOP;
END $$;

CREATE INDEX ix_checkpoints_run_id ON checkpoints (run_id);
CREATE INDEX ix_checkpoints_peer_run_id ON checkpoints ((metadata ->> 'run_id'))
    WHERE run_id IS NULL;

ANALYZE checkpoints, checkpoint_blobs, checkpoint_deltas, checkpoint_writes;
