//! Rows as bound values, `VALUES (?,?),(?,?)`: SQLite has no arrays, and to take rows apart that come as JSON costs it
//! more than to write them.

use sqlx::{
    Arguments, SqliteConnection,
    error::BoxDynError,
    sqlite::{SqliteArguments, SqliteRow},
};

/// The most rows of one statement. Numbers of rows are powers of two, so that a handful of statements stays prepared.
const ROWS_MAX: usize = 128;

/// What stands for the rows in a statement.
const ROWS: &str = "{rows}";

/// Binds the values of a row, in order.
macro_rules! bind {
    ($arguments:ident: $($value:expr),* $(,)?) => {{
        $(sqlx::Arguments::add($arguments, $value)?;)*
        Ok(())
    }};
}
pub(super) use bind;

/// Runs the statement for the rows, in their order. Returns how many rows it touched.
pub(super) async fn execute<'q, T>(
    connection: &mut SqliteConnection,
    sql: &str,
    rows: &'q [T],
    bind: impl Fn(&mut SqliteArguments<'q>, &'q T) -> Result<(), BoxDynError> + Send,
) -> Result<u64, sqlx::Error> {
    let mut touched = 0;
    for piece in pieces(rows) {
        let (sql, arguments) = statement(sql, piece, &bind)?;
        touched += sqlx::query_with(&sql, arguments).execute(&mut *connection).await?.rows_affected();
    }
    Ok(touched)
}

/// Runs the query for the rows.
pub(super) async fn fetch<'q, T>(
    connection: &mut SqliteConnection,
    sql: &str,
    rows: &'q [T],
    bind: impl Fn(&mut SqliteArguments<'q>, &'q T) -> Result<(), BoxDynError> + Send,
) -> Result<Vec<SqliteRow>, sqlx::Error> {
    let mut found = Vec::new();
    for piece in pieces(rows) {
        let (sql, arguments) = statement(sql, piece, &bind)?;
        found.append(&mut sqlx::query_with(&sql, arguments).fetch_all(&mut *connection).await?);
    }
    Ok(found)
}

fn pieces<T>(mut rows: &[T]) -> Vec<&[T]> {
    let mut pieces = Vec::new();
    while let Some(log2) = rows.len().checked_ilog2() {
        let (piece, rest) = rows.split_at(ROWS_MAX.min(1 << log2));
        pieces.push(piece);
        rows = rest;
    }
    pieces
}

fn statement<'q, T>(
    sql: &str,
    rows: &'q [T],
    bind: impl Fn(&mut SqliteArguments<'q>, &'q T) -> Result<(), BoxDynError>,
) -> Result<(String, SqliteArguments<'q>), sqlx::Error> {
    let mut arguments = SqliteArguments::default();
    for row in rows {
        bind(&mut arguments, row).map_err(sqlx::Error::Encode)?;
    }
    let row = format!("({})", vec!["?"; arguments.len() / rows.len()].join(","));
    Ok((sql.replace(ROWS, &format!("VALUES {}", vec![row.as_str(); rows.len()].join(","))), arguments))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_rows_are_powers_of_two() {
        let rows: Vec<usize> = (0..300).collect();
        let pieces = pieces(&rows);
        assert_eq!(pieces.iter().map(|piece| piece.len()).collect::<Vec<_>>(), [128, 128, 32, 8, 4]);
        assert_eq!(pieces.concat(), rows);
    }

    #[test]
    fn a_statement_has_its_values_in_order() {
        let (sql, arguments) =
            statement("INSERT INTO t {rows}", &[(1, "a"), (2, "b")], |values, (n, text)| bind!(values: n, text))
                .unwrap();
        assert_eq!((sql.as_str(), arguments.len()), ("INSERT INTO t VALUES (?,?),(?,?)", 4));
    }
}
