//! A virtual host, a database or a file for one test, gone when it ends.

use outbox::{Postgres, Sqlite};
use sqlx::{Connection, Executor, PgConnection};
use std::{io::Write, path::PathBuf};
use transports::RabbitMq;
use uuid::Uuid;

fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run the tests with `cargo xtask test`"))
}

fn unique() -> String {
    format!("t{}", Uuid::new_v4().simple())
}

/// Notes that the running test cannot do its work, for the summary of `cargo xtask test`: libtest counts it as passed.
fn skipped(why: &str) {
    println!("skipped: {why}");
    let Some(notes) = std::env::var_os("SAGABUS_TEST_SKIPS") else { return };
    let thread = std::thread::current();
    let note = format!("{}: {why}\n", thread.name().unwrap_or("a test"));
    let notes = std::fs::OpenOptions::new().append(true).open(notes);
    // one write, so that the notes of tests that run at the same time do not mix
    notes
        .and_then(|mut notes| notes.write_all(note.as_bytes()))
        .expect("the file of `cargo xtask test` can be written");
}

/// Runs a clean-up to its end, from wherever a test ends.
fn finally(clean_up: impl Future<Output = ()> + Send + 'static) {
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        if let Ok(runtime) = runtime {
            runtime.block_on(clean_up);
        }
    });
    let _ = thread.join(); // what is left behind goes with the test's servers
}

/// A virtual host of RabbitMQ.
#[derive(Debug)]
pub struct Vhost {
    /// Its name.
    pub name: String,
    management: String,
}

impl Vhost {
    /// Creates one.
    ///
    /// # Panics
    /// When the management interface does not let us.
    pub async fn create() -> Self {
        let vhost = Self { name: unique(), management: setting("SAGABUS_TEST_MANAGEMENT_URL") };
        let client = reqwest::Client::new();
        let created = client.put(vhost.api("vhosts", "")).send().await.expect("the management interface answers");
        assert!(created.status().is_success(), "a virtual host was expected, {} came", created.status());
        let all = serde_json::json!({ "configure": ".*", "write": ".*", "read": ".*" });
        let allowed = client
            .put(vhost.api("permissions", "/guest"))
            .json(&all)
            .send()
            .await
            .expect("the management interface answers");
        assert!(allowed.status().is_success(), "permissions were expected, {} came", allowed.status());
        vhost
    }

    fn api(&self, what: &str, rest: &str) -> String {
        format!("{}/api/{what}/{}{rest}", self.management, self.name)
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("{}/{}", setting("SAGABUS_TEST_AMQP_URL"), self.name)
    }

    /// The transport on it.
    ///
    /// # Panics
    /// When the address is wrong.
    pub fn transport(&self) -> RabbitMq {
        RabbitMq::new(&self.url()).expect("the address of the test's broker is an AMQP URL")
    }

    /// The address with a new user, who may write to those queues and exchanges only whose names match.
    ///
    /// # Panics
    /// When the management interface does not let us.
    pub async fn url_with_writes(&self, write: &str) -> String {
        let name = self.name.as_str(); // the user is named like the virtual host, and goes with it
        let permissions = serde_json::json!({ "configure": ".*", "write": write, "read": ".*" });
        let user = serde_json::json!({ "password": name, "tags": "" });
        self.put(format!("{}/api/users/{name}", self.management), &user).await;
        self.put(self.api("permissions", &format!("/{name}")), &permissions).await;
        let (scheme, rest) = self.url().split_once("://").map(|(s, r)| (s.to_owned(), r.to_owned())).expect("a URL");
        let (_, place) = rest.split_once('@').expect("the address names a user");
        format!("{scheme}://{name}:{name}@{place}")
    }

    /// Sets a limit: `max-connections`, `max-queues`.
    ///
    /// # Panics
    /// When the management interface does not let us.
    pub async fn limit(&self, what: &str, limit: u32) {
        let value = serde_json::json!({ "value": limit });
        self.put(self.api("vhost-limits", &format!("/{what}")), &value).await;
    }

    async fn put(&self, url: String, body: &serde_json::Value) {
        let answer = reqwest::Client::new().put(url).json(body).send().await;
        let status = answer.expect("the management interface answers").status();
        assert!(status.is_success(), "{status} came");
    }

    /// A list from the management interface: `queues`, `exchanges`, `bindings`.
    ///
    /// # Panics
    /// When the management interface does not answer.
    pub async fn list(&self, what: &str) -> Vec<serde_json::Value> {
        // a busy management interface may answer with nothing
        crate::eventually("a list from the management interface", || async {
            reqwest::get(self.api(what, "")).await.ok()?.json().await.ok()
        })
        .await
    }

    /// Has the broker put a copy of each message that is published here on `amq.rabbitmq.trace`.
    ///
    /// # Panics
    /// When the management interface does not let us.
    pub async fn trace(&self) {
        let tracing = serde_json::json!({ "tracing": true });
        let answer = reqwest::Client::new().put(self.api("vhosts", "")).json(&tracing).send().await;
        let status = answer.expect("the management interface answers").status();
        assert!(status.is_success(), "tracing was expected, {status} came");
    }

    /// Deletes the virtual host with all that is in it: to its clients the broker is away.
    ///
    /// # Panics
    /// When the management interface does not let us.
    pub async fn delete(&self) {
        let answer = reqwest::Client::new().delete(self.api("vhosts", "")).send().await;
        let status = answer.expect("the management interface answers").status();
        assert!(status.is_success(), "the end of the virtual host was expected, {status} came");
    }

    /// Closes all connections of the virtual host from the broker's side, once there are any. Returns how many.
    pub async fn close_connections(&self) -> usize {
        let client = reqwest::Client::new();
        crate::eventually("connections to close", || async {
            let answer = client.get(self.api("vhosts", "/connections")).send().await.ok()?;
            let connections: Vec<serde_json::Value> = answer.json().await.ok()?;
            for connection in &connections {
                let url = format!(
                    "{}/api/connections/{}",
                    self.management,
                    connection["name"].as_str()?.replace(' ', "%20").replace('>', "%3E")
                );
                let _ = client.delete(url).send().await; // it may be gone already
            }
            (!connections.is_empty()).then_some(connections.len())
        })
        .await
    }
}

impl Drop for Vhost {
    fn drop(&mut self) {
        let (vhost, user) = (self.api("vhosts", ""), format!("{}/api/users/{}", self.management, self.name));
        finally(async move {
            let client = reqwest::Client::new();
            let _ = client.delete(vhost).send().await;
            let _ = client.delete(user).send().await; // most have none
        });
    }
}

/// A database on the test's PostgreSQL; or, with a prefix, those of several services.
#[derive(Debug)]
pub struct Database {
    /// What its name begins with.
    pub name: String,
}

impl Database {
    /// Creates one.
    ///
    /// # Panics
    /// When the server does not let us.
    pub async fn create() -> Self {
        let database = Self::prefix();
        let server = format!("{}/postgres", Self::server());
        let mut server = PgConnection::connect(&server).await.expect("the test's server answers");
        let create = format!("CREATE DATABASE \"{}\"", database.name);
        server.execute(&*create).await.expect("the server creates a database");
        database
    }

    /// Only reserves a name: everything that begins with it goes when this goes.
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

/// PgBouncer in transaction mode before one database.
#[derive(Debug)]
pub struct PgBouncer {
    process: std::process::Child,
    port: u16,
    database: String,
    _folder: File,
}

impl PgBouncer {
    /// Starts one; `None`, and a line that says so, where it is not installed.
    ///
    /// # Panics
    /// When it is installed and does not start.
    pub async fn start(database: &Database) -> Option<Self> {
        let paths = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"];
        let Some(program) = paths.into_iter().find(|path| std::path::Path::new(path).is_file()) else {
            skipped("PgBouncer is not installed (`apt-get install pgbouncer`)");
            return None;
        };
        let folder = File::create();
        let port = crate::process::free_port();
        let server = Database::server();
        let (host, server_port) =
            server.rsplit('@').next().and_then(|address| address.split_once(':')).expect("the server has an address");
        // few sessions of the server for many clients, so that a transaction does get another one
        let settings = format!(
            "[databases]\n* = host={host} port={server_port} user=postgres pool_size=3\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
             pool_mode = transaction\nignore_startup_parameters = extra_float_digits\n"
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
        Some(Self { process, port, database: database.name.clone(), _folder: folder })
    }

    /// The server behind it, as those name it who may use no named statements.
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
