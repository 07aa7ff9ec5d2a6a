//! The book's page of tables names every table, column and view that there is, and no others.

use std::collections::BTreeSet;
use tests::tables::Tables;

const PAGE: &str = include_str!("../../docs/book/tables.md");

/// The texts in backticks of a cell.
fn names(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// The first cells of the tables under the headings, with what the heading names: `(table, column)`.
fn columns() -> BTreeSet<(String, String)> {
    let mut table = "";
    let mut found = BTreeSet::new();
    for line in PAGE.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            table = names(heading).next().unwrap_or_default();
        } else if let Some(row) = line.strip_prefix("| `")
            && !table.is_empty()
        {
            let first = format!("`{}", row.split(" |").next().unwrap_or_default());
            found.extend(names(&first).map(|column| (table.to_owned(), column.to_owned())));
        }
    }
    found
}

fn views() -> BTreeSet<String> {
    let rows = PAGE.lines().filter(|line| line.starts_with("| `v_"));
    rows.filter_map(|row| names(row).next().map(str::to_owned)).collect()
}

async fn the_page_is_true(tables: Tables) {
    let (columns_sql, views_sql) = if tables.is_postgres() {
        (
            "SELECT c.table_name || '.' || c.column_name FROM information_schema.columns c
             JOIN information_schema.tables t USING (table_schema, table_name)
             WHERE c.table_schema = 'sagabus' AND t.table_type = 'BASE TABLE'",
            "SELECT CAST(table_name AS text) FROM information_schema.views WHERE table_schema = 'sagabus'",
        )
    } else {
        (
            "SELECT substr(t.name, 9) || '.' || c.name FROM sqlite_master t, pragma_table_info(t.name) c
             WHERE t.type = 'table' AND t.name LIKE 'sagabus~_%' ESCAPE '~'",
            "SELECT substr(name, 9) FROM sqlite_master WHERE type = 'view'",
        )
    };
    let there: BTreeSet<_> = tables.sql(columns_sql).await.into_iter().flatten().collect();
    let told: BTreeSet<_> = columns().into_iter().map(|(table, column)| format!("{table}.{column}")).collect();
    assert_eq!(there.difference(&told).collect::<Vec<_>>(), [""; 0], "columns that docs/book/tables.md does not name");
    assert_eq!(told.difference(&there).collect::<Vec<_>>(), [""; 0], "columns that are not there");
    let there: BTreeSet<_> = tables.sql(views_sql).await.into_iter().flatten().collect();
    assert_eq!(there, views());

    // what the page says about the views' columns
    tables.instance("7", "Charging", Some("m")).await;
    let fields = "INSERT INTO {s}field (name, value, saga, id, is_alias)
        VALUES ('order by customer', '9', 'order', '7', NULL), ('order by reference', 'r', 'order', '7', TRUE)";
    tables.sql(fields).await;
    tables.hold(&tests::tables::Held::default()).await;
    tables.send("command", "payment", -1, "", "").await;
    tables.send("command", "payment", 1, "", "").await;
    tables.send("command", "payment", 1, ", waits_for", ", 'payment'").await;
    tables.send("timer", "ordering", -1, "", "").await;
    for (sql, expected) in [
        ("state || ' ' || CAST(is_done AS int) || CAST(is_paused AS int) FROM {s}v_instances", &["Charging 01"][..]),
        (
            "name || ' ' || value || ' ' || id || CAST(is_alias AS int) FROM {s}v_fields ORDER BY 1",
            &["customer 9 70", "reference r 71"],
        ),
        ("result || ' ' || saga || id FROM {s}v_journal", &["held order7"]),
        ("status FROM {s}v_outbox ORDER BY 1", &["due", "scheduled", "unroutable"]),
        ("type || ' ' || CAST(is_due AS int) FROM {s}v_timers", &["payment.MakePayment 1"]),
        ("reason || ' ' || CAST(needs_person AS int) || id FROM {s}v_held", &["failed 17"]),
        ("owner FROM {s}v_processes", &[]),
        ("action FROM {s}v_operations", &[]),
    ] {
        let found: Vec<_> = tables.sql(&format!("SELECT {}", sql.replace("AS int)", "AS integer)"))).await;
        let found: Vec<_> = found.into_iter().flatten().collect();
        assert_eq!(found, expected, "{sql}");
    }
    let year = "SELECT substr(CAST(created_at AS text), 1, 2) FROM {s}v_instances";
    assert_eq!(tables.one(year).await.as_deref(), Some("20"), "a time that people can read");
}

#[tokio::test]
async fn on_postgres_every_table_column_and_view_is_in_the_book() {
    the_page_is_true(Tables::postgres().await).await;
}

#[tokio::test]
async fn on_sqlite_every_table_column_and_view_is_in_the_book() {
    the_page_is_true(Tables::sqlite().await).await;
}
