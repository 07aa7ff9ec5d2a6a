//! What a PostgreSQL server says of itself.

/// [`Listing::Server`](saga_core::Listing::Server): it names no table of ours, which may not be there.
pub(super) const SERVER: &str = "
    SELECT json_build_object('server', version(), 'now_us', (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
        'settings', (SELECT json_object_agg(name, setting) FROM pg_settings WHERE name IN ('max_connections',
            'max_locks_per_transaction', 'fsync', 'synchronous_commit', 'autovacuum', 'default_transaction_isolation',
            'idle_in_transaction_session_timeout', 'TimeZone')),
        'extensions', (SELECT coalesce(json_agg(extname), '[]') FROM pg_extension),
        'tables', (SELECT coalesce(json_agg(json_build_object('table', relname, 'bytes',
                pg_total_relation_size(relid), 'rows', n_live_tup, 'dead', n_dead_tup) ORDER BY relname), '[]')
            FROM pg_stat_user_tables WHERE schemaname = 'sagabus'),
        'oldest_transaction_ms', (SELECT (extract(epoch FROM clock_timestamp() - min(xact_start)) * 1000)::bigint
            FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()))::text";

/// [`Listing::Upkeep`](saga_core::Listing::Upkeep). Dead leases are among the oldest rows that are due; whose they are
/// is found in the index, endpoint by endpoint.
pub(super) const UPKEEP: &str = "
    WITH RECURSIVE e (endpoint) AS (
        SELECT min(endpoint) FROM sagabus.outbox
        UNION ALL
        SELECT (SELECT min(o.endpoint) FROM sagabus.outbox o WHERE o.endpoint > e.endpoint) FROM e
        WHERE e.endpoint IS NOT NULL)
    SELECT json_build_object('schema_version', (SELECT max(version) FROM sagabus.schema_version),
        'dead_leases', (SELECT count(*) FROM e, LATERAL (SELECT lease_until FROM sagabus.outbox o
                WHERE o.endpoint = e.endpoint AND o.due_at <= statement_timestamp() ORDER BY o.due_at LIMIT 10000) o
            WHERE o.lease_until < statement_timestamp() - interval '1 minute'),
        'processes', (SELECT count(*) FROM sagabus.process
            WHERE seen_at > clock_timestamp() - interval '90 seconds'))::text";
