//! How long an operator's listings take on large tables: `listings [ROWS]` fills each table of each store with so many
//! rows (1,000,000) and prints a table in Markdown, the best of three looks; `listings ROWS --plans` prints how each is
//! read as well.

use std::time::{Duration, Instant};
use tests::{
    many::{Question, fill, questions},
    tables::Tables,
};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let rows = arguments.get(1).and_then(|rows| rows.replace('_', "").parse().ok()).unwrap_or(1_000_000);
    let with_plans = arguments.iter().any(|argument| argument == "--plans");
    let stores = [Tables::postgres().await, Tables::sqlite().await];
    for tables in &stores {
        let began = Instant::now();
        fill(tables, rows).await;
        eprintln!("filled in {:.0} s: {}", began.elapsed().as_secs_f64(), tables.url);
    }
    println!("| {rows} rows in each table | rows | PostgreSQL, ms | SQLite, ms |");
    println!("|---|---|---|---|");
    for question in questions(rows) {
        let (found, one) = time(&question, &stores[0]).await;
        let (also, other) = time(&question, &stores[1]).await;
        let found = if found == also { found.to_string() } else { format!("{found} / {also}") };
        println!("| `{}` | {found} | {} | {} |", question.command, one.as_millis(), other.as_millis());
        if with_plans {
            for tables in &stores {
                for plan in question.reads.plans(&tables.url).await.expect("it can be explained") {
                    println!("\n{plan}\n");
                }
            }
        }
    }
}

async fn time(question: &Question, tables: &Tables) -> (usize, Duration) {
    let mut best = Duration::MAX;
    let mut rows = 0;
    for _ in 0..3 {
        let began = Instant::now();
        rows = question.reads.ask(&*tables.store).await.expect("the database answers");
        best = best.min(began.elapsed());
    }
    (rows, best)
}
