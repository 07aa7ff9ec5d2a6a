//! The sample's services as processes that may be killed.

use crate::{Database, Vhost};
use serde_json::Value;
use std::{
    fs::OpenOptions,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// The folder of the programs that `cargo xtask test` built.
///
/// # Panics
/// When the test runs from a place without parents.
pub fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a program knows where it is");
    // tests lie in target/PROFILE/deps, programs in target/PROFILE
    let folder = own.ancestors().skip(1).find(|folder| !folder.ends_with("deps")).expect("target/PROFILE");
    let path = folder.join(name);
    assert!(path.is_file(), "{} is not built: run the tests with `cargo xtask test`", path.display());
    path
}

/// Where the services of one system are.
#[derive(Debug)]
pub struct System {
    /// The broker.
    pub vhost: Vhost,
    /// The databases' prefix.
    pub database: Database,
}

impl System {
    /// A system with nothing running.
    pub async fn create() -> Self {
        Self { vhost: Vhost::create().await, database: Database::prefix() }
    }

    /// Starts a service; `more` are further arguments.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn serve(&self, service: &str, more: &[&str]) -> Service {
        let log = std::env::temp_dir().join(format!("{}-{service}.log", self.database.name));
        let (broker, server) = (self.vhost.url(), Database::server());
        let place = ["--broker", &broker, "--database", &server, "--prefix", &self.database.name];
        Service::start(&[&["serve", service][..], &place, more].concat(), log)
    }

    /// Runs `ordering` to its end, in the background; its JSON.
    pub async fn run(&self, arguments: &[&str]) -> (bool, Value) {
        let output = tokio::process::Command::new(program("ordering"))
            .args(arguments)
            .env("RUST_LOG", "off")
            .stdin(Stdio::null())
            .output()
            .await
            .expect("the program runs");
        let printed = String::from_utf8_lossy(&output.stdout);
        let json = serde_json::from_str(&printed).unwrap_or_else(|error| {
            panic!(
                "one JSON object was expected ({error}); stdout {printed}; stderr {}",
                String::from_utf8_lossy(&output.stderr)
            )
        });
        (output.status.success(), json)
    }

    /// Audits the books.
    ///
    /// # Panics
    /// When they do not agree within a minute.
    pub async fn verify(&self, orders: usize) -> Value {
        let (orders, server) = (orders.to_string(), Database::server());
        let arguments = [
            "verify",
            "--database",
            &server,
            "--prefix",
            &self.database.name,
            "--orders",
            &orders,
            "--wait",
            "60",
            "--json",
        ];
        let (clean, audit) = self.run(&arguments).await;
        assert!(clean, "clean books were expected: {audit:#}");
        audit
    }
}

/// A running service; killed when dropped.
#[derive(Debug)]
pub struct Service {
    child: Child,
    log: PathBuf,
}

impl Service {
    /// Starts `ordering` with these arguments; its log is appended to the file.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn start(arguments: &[&str], log: PathBuf) -> Self {
        Self { child: spawn(arguments, &log), log }
    }

    /// Kills it, if it still runs, and starts it with these arguments; its log goes on.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn start_again(&mut self, arguments: &[&str]) {
        self.kill();
        self.child = spawn(arguments, &self.log);
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill(); // it may have died by itself
        let _ = self.child.wait();
    }

    /// Whether it has died by itself.
    pub fn is_dead(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// SIGTERM, without waiting for anything.
    pub fn signal(&self) {
        self.send("TERM");
    }

    /// A signal by its name, `STOP`, without waiting for anything.
    pub fn send(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-s", signal, &pid]).status(); // it may have died by itself
    }

    /// SIGTERM; returns whether it ended well.
    ///
    /// # Panics
    /// When it does not end within the patience of the tests.
    pub async fn terminate(&mut self) -> bool {
        self.signal();
        let status = crate::eventually("the service ends after SIGTERM", || {
            let status = self.child.try_wait().ok().flatten();
            async move { status }
        })
        .await;
        status.success()
    }

    /// What it logged so far, in all its lives.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("--- {}", self.log.display());
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        } else {
            let _ = std::fs::remove_file(&self.log);
        }
    }
}

fn spawn(arguments: &[&str], log: &Path) -> Child {
    let out = OpenOptions::new().create(true).append(true).open(log).expect("the log can be written");
    Command::new(program("ordering"))
        .args(arguments)
        .env_remove("RUST_LOG") // the default is part of what is tested
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(out)
        .spawn()
        .expect("the service starts")
}

/// A port that was free just now.
///
/// # Panics
/// When there is none.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    listener.local_addr().expect("it has an address").port()
}
