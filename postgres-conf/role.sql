-- The role that walpoint connects as: it may take base backups, switch WAL
-- and read settings and statistics, and nothing else.
--
--     psql -X -d postgres -f role.sql
--
-- Can be run again. "walpoint init --apply" uses ALTER SYSTEM and needs a
-- superuser instead.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'walpoint') THEN
        CREATE ROLE walpoint LOGIN;
    END IF;
    GRANT pg_monitor TO walpoint;
    GRANT EXECUTE ON FUNCTION pg_switch_wal() TO walpoint;
    GRANT EXECUTE ON FUNCTION pg_create_restore_point(text) TO walpoint;
    IF current_setting('server_version_num')::int >= 150000 THEN
        GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean) TO walpoint;
        GRANT EXECUTE ON FUNCTION pg_backup_stop(boolean) TO walpoint;
    ELSE
        GRANT EXECUTE ON FUNCTION pg_start_backup(text, boolean, boolean) TO walpoint;
        GRANT EXECUTE ON FUNCTION pg_stop_backup(boolean, boolean) TO walpoint;
    END IF;
END
$$;
