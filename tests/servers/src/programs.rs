//! Where the installed programs are.

use crate::shell::{is_root, run, succeeds};
use anyhow::{Context, Result, bail};
use std::{
    fs,
    io::{IsTerminal, Write},
    path::PathBuf,
};

/// What installs the programs on Debian.
pub const INSTALL: &str = "apt-get install postgresql rabbitmq-server";

/// The folder of another RabbitMQ's `rabbitmq-server` and `rabbitmqctl`, to run everything on a version that is not the
/// installed one.
const RABBITMQ: &str = "SAGABUS_RABBITMQ_BIN";

/// The folders of installed programs.
#[derive(Debug, Clone)]
pub struct Programs {
    /// PostgreSQL's.
    pub(crate) postgres: PathBuf,
    /// RabbitMQ's.
    pub(crate) rabbitmq: PathBuf,
}

impl Programs {
    /// The installed programs, if both servers are installed.
    pub fn find() -> Option<Self> {
        let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path().join("bin"))
            .collect();
        versions.sort();
        let postgres = versions
            .into_iter()
            .rev()
            .chain(path())
            .find(|bin| bin.join("initdb").is_file() && bin.join("pg_ctl").is_file())?;
        let named = std::env::var_os(RABBITMQ).map(PathBuf::from);
        let usual = ["/usr/lib/rabbitmq/bin", "/usr/local/sbin"].into_iter().map(PathBuf::from).chain(path());
        let rabbitmq = named
            .map_or_else(|| usual.collect(), |folder| vec![folder])
            .into_iter()
            .find(|bin| bin.join("rabbitmq-server").is_file())?;
        Some(Self { postgres, rabbitmq })
    }

    /// Installs Debian's packages. Asks before, if somebody is there to ask.
    ///
    /// # Errors
    /// When the packages cannot be installed.
    pub fn install() -> Result<Self> {
        install("RabbitMQ or PostgreSQL", INSTALL)?;
        Self::find().context("the packages are installed, but their programs are not where Debian puts them")
    }
}

/// Whether packages can be installed here.
pub fn can_install() -> bool {
    succeeds("apt-get", &["--version"]) && is_root()
}

/// Installs packages by a command, because `what` is missing. Asks before, if somebody is there to ask.
pub(crate) fn install(what: &str, command: &str) -> Result<()> {
    println!("{what} is missing; `{command}` installs what is missing");
    if std::io::stdin().is_terminal() {
        print!("continue? [y/N] ");
        std::io::stdout().flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if !answer.trim().eq_ignore_ascii_case("y") {
            bail!("cancelled: nothing was installed");
        }
    }
    let quietly = command.replace("install", "install -y --no-install-recommends");
    run(&format!("apt-get update && DEBIAN_FRONTEND=noninteractive {quietly}"))
}

pub(crate) fn path() -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).collect::<Vec<_>>().into_iter()
}
