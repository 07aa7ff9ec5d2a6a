//! What an SQLite file says of itself.

/// [`Listing::Server`](saga_core::Listing::Server).
pub(super) const SERVER: &str = "
    SELECT json_object('server', 'SQLite ' || sqlite_version(),
        'now_us', CAST(unixepoch('subsec') * 1000000 AS INTEGER),
        'settings', json_object('journal_mode', (SELECT journal_mode FROM pragma_journal_mode),
            'page_size', (SELECT '' || page_size FROM pragma_page_size)),
        'tables', json_array(json_object('table', 'the whole file',
            'bytes', (SELECT page_count FROM pragma_page_count) * (SELECT page_size FROM pragma_page_size))))";

/// [`Listing::Upkeep`](saga_core::Listing::Upkeep). Dead leases are among the oldest rows that are due; whose they are
/// is found in the index, endpoint by endpoint.
pub(super) const UPKEEP: &str = "
    WITH RECURSIVE clock (now) AS (SELECT CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    e (endpoint) AS (
        SELECT min(endpoint) FROM sagabus_outbox
        UNION ALL
        SELECT (SELECT min(o.endpoint) FROM sagabus_outbox o WHERE o.endpoint > e.endpoint) FROM e
        WHERE e.endpoint IS NOT NULL)
    SELECT json_object('schema_version', (SELECT max(version) FROM sagabus_schema_version),
        'dead_leases', (SELECT coalesce(sum((SELECT count(*) FROM (SELECT o.lease_until FROM sagabus_outbox o
                WHERE o.endpoint = e.endpoint AND o.due_at <= (SELECT now FROM clock) ORDER BY o.due_at LIMIT 10000)
            WHERE lease_until < (SELECT now FROM clock) - 60000000)), 0) FROM e),
        'processes', (SELECT count(*) FROM sagabus_process WHERE seen_at > (SELECT now FROM clock) - 90000000))";
