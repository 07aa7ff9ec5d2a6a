//! Services in processes of their own.

use crate::{
    bus::{self, Handlers},
    rig::Servers,
    work::Service,
};
use anyhow::{Context, Result, ensure};
use std::{fmt::Write, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
    sync::mpsc,
    time::timeout,
};
use uuid::Uuid;

/// What a process says first.
const READY: &str = "ready";
/// How long a process may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// This program, as one service; it ends when its standard input does.
pub(crate) fn command(servers: &Servers, service: Service) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["service", service.name(), "--broker", &servers.broker, "--database", &servers.database])
        .args(["--prefix", &servers.prefix])
        .stdin(Stdio::piped())
        .kill_on_drop(true);
    Ok(command)
}

/// Runs a service until the standard input ends. Prints which orders have ended.
pub(crate) async fn serve(servers: &Servers, service: Service) -> Result<bool> {
    let (ended, mut ends) = mpsc::unbounded_channel::<Uuid>();
    let endpoint = bus::start_one(servers, service, ended, Handlers::Batch, 1).await?;
    let printing = tokio::spawn(async move {
        let (mut out, mut ids) = (tokio::io::stdout(), Vec::new());
        let mut lines = format!("{READY}\n");
        loop {
            out.write_all(lines.as_bytes()).await?;
            out.flush().await?;
            lines.clear();
            if ends.recv_many(&mut ids, 1000).await == 0 {
                return anyhow::Ok(());
            }
            for id in ids.drain(..) {
                writeln!(lines, "{id}")?;
            }
        }
    });
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    endpoint.stop().await?;
    printing.abort();
    Ok(true)
}

/// Processes that run.
pub(crate) struct Fleet(Vec<Child>);

impl Fleet {
    /// So many processes of each service; they are ready when this returns.
    pub(crate) async fn start(servers: &Servers, each: usize, ended: &mpsc::UnboundedSender<Uuid>) -> Result<Self> {
        let mut fleet = Vec::new();
        for service in Service::ALL.into_iter().cycle().take(each * Service::ALL.len()) {
            let mut child = command(servers, service)?.stdout(Stdio::piped()).spawn()?;
            let mut lines = BufReader::new(child.stdout.take().context("its output is ours")?).lines();
            fleet.push(child);
            let first = timeout(PATIENCE, lines.next_line()).await.context("a process does not start")??;
            ensure!(first.as_deref() == Some(READY), "{} did not start", service.name());
            let ended = ended.clone();
            tokio::spawn(async move {
                while let Ok(Some(line)) = lines.next_line().await {
                    let _ = line.parse().map(|id| ended.send(id)); // the client has what it wanted
                }
            });
        }
        Ok(Self(fleet))
    }

    /// Ends them, and waits until they have ended well.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.0.iter_mut().for_each(|child| drop(child.stdin.take()));
        for child in &mut self.0 {
            let status = timeout(PATIENCE, child.wait()).await.context("a process does not end")??;
            ensure!(status.success(), "a process ended with {status}");
        }
        Ok(())
    }
}
