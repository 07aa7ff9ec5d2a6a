//! What is easier said to a shell.

use anyhow::{Result, bail};
use std::{
    fs,
    net::TcpListener,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// How long a server may take to start or to stop. RabbitMQ has needed more than 90 seconds on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);

/// Whether this process is root's.
pub fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n")
}

/// Whether a program runs and ends well.
pub fn succeeds(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs a shell command; what it printed is shown only if it fails.
///
/// # Errors
/// When the command fails.
pub fn run(command: &str) -> Result<()> {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    // files, not pipes: a server that is left running would keep a pipe open
    let name = format!("sagabus-run-{}-{}.log", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
    let log = std::env::temp_dir().join(name);
    let out = fs::File::create(&log)?;
    let status = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        .current_dir("/")
        .status()?;
    let printed = fs::read_to_string(&log).unwrap_or_default();
    fs::remove_file(&log)?;
    if !status.success() {
        bail!("`{command}` failed:\n{printed}");
    }
    Ok(())
}

/// Has a shell command run when this process has ended, however it ends.
///
/// # Errors
/// When there is no shell.
pub fn when_we_are_gone(command: &str) -> Result<()> {
    let watch = format!("while kill -0 {}; do sleep 0.5; done; {command}", std::process::id());
    Command::new("sh")
        .args(["-c", &watch])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    Ok(())
}

/// A port that was free just now.
///
/// # Errors
/// When none is.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Waits until `up`.
///
/// # Errors
/// When it takes longer than a server may.
pub fn wait(what: &str, mut up: impl FnMut() -> bool) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    while !up() {
        if Instant::now() > until {
            bail!("{what}: not within {PATIENCE:?}; logs are in {}", std::env::temp_dir().display());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
