//! A database or a file for one test, deleted when the test ends.

use crate::services::{finally, setting, unique};
use outbox::{Postgres, Sqlite};
use sqlx::{Connection, Executor, PgConnection};
use std::path::PathBuf;

/// A database on the test's PostgreSQL; or, with a prefix, those of several services.
#[derive(Debug)]
pub struct Database {
    /// The beginning of its name.
    pub name: String,
}

impl Database {
    /// Creates one.
    ///
    /// # Panics
    /// When the server does not let us.
    pub async fn create() -> Self {
        Self::create_as("").await
    }

    /// Creates one with options of `CREATE DATABASE`.
    ///
    /// # Panics
    /// When the server does not let us.
    pub async fn create_as(options: &str) -> Self {
        let database = Self::prefix();
        let sql = format!("CREATE DATABASE \"{}\" {options}", database.name);
        let server = format!("{}/postgres", Self::server());
        let mut server = PgConnection::connect(&server).await.expect("the server is there");
        server.execute(sql.as_str()).await.expect("the server creates a database");
        database
    }

    /// Only reserves a name: databases whose names begin with it are dropped together with this.
    pub fn prefix() -> Self {
        Self { name: unique() }
    }

    /// The server.
    pub fn server() -> String {
        setting("SAGABUS_TEST_DATABASE_URL")
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("{}/{}", Self::server(), self.name)
    }

    /// The store in it.
    ///
    /// # Panics
    /// When the address is wrong.
    pub fn store(&self) -> Postgres {
        Postgres::with_connections(&self.url(), 8).expect("the address of the test's database is a PostgreSQL URL")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (server, name) = (Self::server(), self.name.clone());
        finally(async move {
            let Ok(mut connection) = PgConnection::connect(&format!("{server}/postgres")).await else { return };
            let names: Vec<String> =
                sqlx::query_scalar("SELECT datname FROM pg_database WHERE starts_with(datname, $1)")
                    .bind(name)
                    .fetch_all(&mut connection)
                    .await
                    .unwrap_or_default();
            for name in names {
                let _ = connection.execute(&*format!("DROP DATABASE \"{name}\" WITH (FORCE)")).await;
            }
        });
    }
}

/// A role of the server that owns nothing, dropped when the test ends.
#[derive(Debug)]
pub struct Role {
    name: String,
    database: String,
}

impl Role {
    /// Creates one and grants it, in a database that has its tables, what SECURITY.md says that a service needs.
    ///
    /// # Panics
    /// When the page has no grants, or the server does not let us.
    pub async fn create(database: &Database) -> Self {
        let page = include_str!("../../SECURITY.md");
        let grants = page.split("```sql").nth(1).and_then(|block| block.split("```").next());
        let role = Self { name: unique(), database: database.name.clone() };
        let sql = grants.expect("SECURITY.md has a block of SQL").replace(" app;", &format!(" \"{}\";", role.name));
        assert!(sql.contains(&role.name), "the grants of SECURITY.md are for a role `app`:{sql}");
        let mut owner = PgConnection::connect(&database.url()).await.expect("the database is there");
        let created = format!("CREATE ROLE \"{0}\" LOGIN PASSWORD '{0}'", role.name);
        owner.execute(created.as_str()).await.expect("the server creates a role");
        owner.execute(sql.as_str()).await.expect("the grants of SECURITY.md are valid");
        role
    }

    /// The store as this role sees it.
    ///
    /// # Panics
    /// When the address is wrong.
    pub fn store(&self) -> Postgres {
        let server = Database::server();
        let address = server.rsplit(['@', '/']).next().expect("the server has an address");
        let url = format!("postgres://{0}:{0}@{address}/{1}", self.name, self.database);
        Postgres::with_connections(&url, 8).expect("the address is a PostgreSQL URL")
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let (server, name) = (Database::server(), self.name.clone());
        finally(async move {
            // its grants are gone with the database, which is dropped before
            let Ok(mut connection) = PgConnection::connect(&format!("{server}/postgres")).await else { return };
            let _ = connection.execute(&*format!("DROP ROLE \"{name}\"")).await;
        });
    }
}

/// PgBouncer in transaction mode in front of one database.
#[derive(Debug)]
pub struct PgBouncer {
    process: std::process::Child,
    port: u16,
    database: String,
    _folder: File,
}

impl PgBouncer {
    /// Starts one. Tests that need it are ignored where the build script does not find it (`cfg(pgbouncer)`).
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(database: &Database) -> Self {
        let program = env!("PGBOUNCER");
        assert!(!program.is_empty(), "pgbouncer is not installed (apt-get install pgbouncer)");
        let folder = File::create();
        let port = crate::process::free_port();
        let server = Database::server();
        let (host, server_port) =
            server.rsplit('@').next().and_then(|address| address.split_once(':')).expect("the server has an address");
        // few sessions of the server for many clients, so that a transaction really gets another one
        let settings = format!(
            "[databases]\n* = host={host} port={server_port} user=postgres pool_size=3\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = any\npool_mode = transaction\nignore_startup_parameters = extra_float_digits\n"
        );
        let file = folder.folder.join("pgbouncer.ini");
        std::fs::write(&file, settings).expect("the folder can be written");
        // it refuses to run as root
        let user = std::process::Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
        let arguments: &[&str] = if user { &["-q", "-u", "postgres"] } else { &["-q"] };
        let process = std::process::Command::new(program).args(arguments).arg(&file).spawn().expect("pgbouncer starts");
        crate::eventually("pgbouncer to listen", || async move {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()
        })
        .await;
        Self { process, port, database: database.name.clone(), _folder: folder }
    }

    /// The server behind it, as a URL for clients that must not use named statements.
    pub fn server(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}?statement-cache-capacity=0", self.port)
    }

    /// The store through it.
    ///
    /// # Panics
    /// When the address is wrong.
    pub fn store(&self) -> Postgres {
        let url = format!("postgres://postgres@127.0.0.1:{}/{}?statement-cache-capacity=0", self.port, self.database);
        Postgres::with_connections(&url, 8).expect("the address is a PostgreSQL URL")
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.process.kill(); // it may have ended by itself
        let _ = self.process.wait();
    }
}

/// A folder for SQLite files.
#[derive(Debug)]
pub struct File {
    /// The folder.
    pub folder: PathBuf,
}

impl File {
    /// Creates one.
    ///
    /// # Panics
    /// When the folder for temporary files cannot be written.
    pub fn create() -> Self {
        let folder = std::env::temp_dir().join(format!("sagabus-{}", unique()));
        std::fs::create_dir_all(&folder).expect("the folder for temporary files can be written");
        Self { folder }
    }

    /// A store in it.
    ///
    /// # Panics
    /// When the file cannot be opened.
    pub async fn store(&self, name: &str) -> Sqlite {
        Sqlite::open(self.folder.join(name)).await.expect("a new file opens")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
