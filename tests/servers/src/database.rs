//! PostgreSQL.

use crate::{
    programs::Programs,
    shell::{free_port, is_root, run, when_we_are_gone},
};
use anyhow::{Context, Result};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

/// Settings besides the port.
const SETTINGS: &str = "-c listen_addresses=127.0.0.1 -c unix_socket_directories=''";

/// How a server is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Transactions are rolled back, everything is written.
    Fast,
    /// As if it crashed: it recovers at its next start.
    Immediate,
}

/// A PostgreSQL server of one's own, on a free port of 127.0.0.1, user postgres, trusted.
#[derive(Debug)]
pub struct Server {
    /// The folder of its programs.
    programs: PathBuf,
    folder: PathBuf,
    port: u16,
    connections: u32,
}

impl Server {
    /// Prepares a server that does not run yet, and that takes so many connections.
    ///
    /// # Errors
    /// When `initdb` fails.
    pub fn prepare(programs: &Programs, connections: u32) -> Result<Self> {
        let port = free_port()?;
        let folder = std::env::temp_dir().join(format!("sagabus-postgres-{}-{port}", std::process::id()));
        fs::create_dir_all(&folder)?;
        if is_root() {
            run(&format!("chown postgres '{}'", folder.display()))?; // PostgreSQL refuses to run as root
        }
        let server = Self { programs: programs.postgres.clone(), folder, port, connections };
        when_we_are_gone(&format!("{}; rm -rf '{}'", server.stop_command(Stop::Immediate), server.folder.display()))?;
        let initdb = server.program("initdb");
        run(&format!("{initdb} -D '{}' -U postgres -A trust -E UTF8 --locale=C", server.data().display()))?;
        Ok(server)
    }

    /// Adds lines to its `postgresql.conf`, and says anew who may connect (`pg_hba.conf`).
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn configure(&self, lines: &str, who: &str) -> Result<()> {
        let conf = fs::OpenOptions::new().append(true).open(self.data().join("postgresql.conf"));
        conf?.write_all(lines.as_bytes())?;
        Ok(fs::write(self.data().join("pg_hba.conf"), who)?)
    }

    /// Starts it, and waits until it takes connections.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(&self) -> Result<()> {
        run(&format!(
            "{} start -w -D '{}' -l '{}' -o \"-p {} -c max_connections={} {SETTINGS}\"",
            self.program("pg_ctl"),
            self.data().display(),
            self.folder.join("out.log").display(),
            self.port,
            self.connections,
        ))
    }

    /// Stops it.
    ///
    /// # Errors
    /// When it does not run, or does not stop.
    pub fn stop(&self, how: Stop) -> Result<()> {
        run(&self.stop_command(how))
    }

    /// SIGSTOP for each of its processes: its port takes connections, and nobody answers.
    ///
    /// # Errors
    /// When it does not run.
    pub fn freeze(&self) -> Result<()> {
        let postmaster = self.postmaster()?;
        // the parent is stopped before: it starts no more children
        run(&format!("kill -STOP {postmaster}"))?;
        self.to_children(postmaster, "STOP")
    }

    /// Goes on after [`Server::freeze`].
    ///
    /// # Errors
    /// When it does not run.
    pub fn thaw(&self) -> Result<()> {
        let postmaster = self.postmaster()?;
        self.to_children(postmaster, "CONT")?;
        run(&format!("kill -CONT {postmaster}"))
    }

    /// Its address without a database; `user` may be any role of it.
    pub fn url(&self, user: &str) -> String {
        format!("postgres://{user}@{}", self.address())
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn stop_command(&self, how: Stop) -> String {
        let mode = match how {
            Stop::Fast => "fast",
            Stop::Immediate => "immediate",
        };
        format!("{} stop -w -D '{}' -m {mode}", self.program("pg_ctl"), self.data().display())
    }

    /// The folder of its data.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn postmaster(&self) -> Result<u32> {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).context("the server does not run")?;
        Ok(file.lines().next().unwrap_or_default().trim().parse()?)
    }

    fn to_children(&self, postmaster: u32, signal: &str) -> Result<()> {
        let children: Vec<String> = children(postmaster)?.iter().map(u32::to_string).collect();
        run(&format!("kill -{signal} {} || true", children.join(" "))) // one may have ended meanwhile
    }

    /// A command of PostgreSQL's, as a user that it accepts.
    fn program(&self, name: &str) -> String {
        let program = self.programs.join(name);
        if is_root() {
            format!("runuser -u postgres -- '{}'", program.display())
        } else {
            format!("'{}'", program.display())
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.postmaster().is_ok() {
            let _ = self.thaw(); // it was not frozen
            if let Err(error) = self.stop(Stop::Immediate) {
                eprintln!("the database server on port {} may be left behind: {error:#}", self.port);
            }
        }
        let _ = fs::remove_dir_all(&self.folder); // a folder in /tmp is left behind
    }
}

/// PostgreSQL's processes are no process group: each has its own.
fn children(of: u32) -> Result<Vec<u32>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc").context("processes are looked up in /proc")?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
        if parent(&entry.path()) == Some(of) {
            children.push(pid);
        }
    }
    Ok(children)
}

/// `pid (name) state parent …`
fn parent(process: &Path) -> Option<u32> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()
}
