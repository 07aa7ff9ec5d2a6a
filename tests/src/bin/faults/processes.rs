//! The services' processes, and who starts them again.

use crate::{act::Signal, rows::SERVICES};
use anyhow::{Context, Result, ensure};
use saga_core::CrashPoint;
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tests::process::{Service, free_port};
use tokio::{task::AbortHandle, time::sleep};

/// Payments that are silent, and rows of processes that died, are to occur in a short time.
const SHORT: [&str; 4] = ["--payment-timeout", "2", "--lease", "3"];
/// How often somebody looks for processes that died.
const LOOK: Duration = Duration::from_millis(50);

/// All processes of one system.
#[derive(Debug)]
pub(crate) struct Processes {
    all: Arc<Mutex<Vec<Process>>>,
    /// What each is told about servers and databases.
    place: Vec<String>,
    supervisor: AbortHandle,
}

#[derive(Debug)]
struct Process {
    service: &'static str,
    /// Where it listens for HTTP, if it is ordering.
    port: u16,
    arguments: Vec<String>,
    log: PathBuf,
    running: Service,
    /// How often it was started.
    lives: usize,
    /// It was told to end, and nobody starts it until somebody says so.
    told_to_end: bool,
    /// It died by itself.
    deaths: usize,
}

impl Process {
    fn start(&mut self, more: &[&str]) {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
        self.running.start_again(&arguments);
        self.lives += 1;
        self.told_to_end = false;
    }

    /// Whether it has started in its latest life.
    fn has_started(&self) -> bool {
        self.running.log().matches("service started").count() >= self.lives
    }
}

impl Processes {
    /// Starts so many processes of each service.
    pub(crate) async fn start_all(place: Vec<String>, more: &[&str], each: usize) -> Result<Self> {
        let all: Arc<Mutex<Vec<Process>>> = Arc::default();
        let watched = all.clone();
        let supervisor = tokio::spawn(async move {
            loop {
                sleep(LOOK).await;
                for process in lock(&watched).iter_mut().filter(|process| !process.told_to_end) {
                    if process.running.is_dead() {
                        process.deaths += 1;
                        process.start(&[]);
                    }
                }
            }
        });
        let place = place.into_iter().chain(more.iter().map(|argument| (*argument).to_owned())).collect();
        let processes = Self { all, place, supervisor: supervisor.abort_handle() };
        processes.scale(each).await?;
        Ok(processes)
    }

    /// Where ordering listens.
    pub(crate) fn ports(&self) -> Vec<u16> {
        lock(&self.all).iter().filter(|process| process.service == "ordering").map(|process| process.port).collect()
    }

    /// How often a process died that nobody killed.
    pub(crate) fn deaths(&self) -> usize {
        lock(&self.all).iter().map(|process| process.deaths).sum()
    }

    /// The ends of all logs.
    pub(crate) fn logs(&self, lines: usize) -> String {
        let tail = |process: &Process| {
            let log = process.running.log();
            let from = log.lines().count().saturating_sub(lines);
            let tail: Vec<&str> = log.lines().skip(from).collect();
            format!("--- {}\n{}\n", process.log.display(), tail.join("\n"))
        };
        lock(&self.all).iter().map(tail).collect()
    }

    pub(crate) fn signal(&self, service: &str, signal: Signal, one: bool) {
        let mut all = lock(&self.all);
        let of_service = all.iter_mut().rev().filter(|process| process.service == service);
        for process in of_service.take(if one { 1 } else { usize::MAX }) {
            match signal {
                Signal::Kill => process.running.kill(),
                Signal::Term => process.running.signal(),
                Signal::Stop => process.running.send("STOP"),
                Signal::Cont => process.running.send("CONT"),
            }
            process.told_to_end |= matches!(signal, Signal::Kill | Signal::Term);
        }
    }

    /// Starts what was told to end, once it has.
    pub(crate) async fn start(&self, which: impl Fn(&str) -> bool) -> Result<()> {
        let until = Instant::now() + tests::PATIENCE;
        loop {
            let mut left = 0;
            for process in lock(&self.all).iter_mut().filter(|process| which(process.service) && process.told_to_end) {
                if process.running.is_dead() {
                    process.start(&[]);
                } else {
                    left += 1;
                }
            }
            if left == 0 {
                return Ok(());
            }
            ensure!(Instant::now() < until, "{left} processes do not end after SIGTERM");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts further processes, or ends those that started last, and waits for it.
    pub(crate) async fn scale(&self, each: usize) -> Result<()> {
        for service in SERVICES {
            let running = lock(&self.all).iter().filter(|process| process.service == service).count();
            for _ in running..each {
                let process = self.new_process(service)?;
                lock(&self.all).push(process);
            }
            for _ in each..running {
                self.signal_last(service);
            }
        }
        self.until("processes start and end", |all| {
            all.retain_mut(|process| !(process.told_to_end && process.running.is_dead()));
            all.iter().all(|process| process.has_started() && !process.told_to_end)
        })
        .await
    }

    fn signal_last(&self, service: &str) {
        let mut all = lock(&self.all);
        let last = all.iter_mut().rev().find(|process| process.service == service && !process.told_to_end);
        if let Some(process) = last {
            process.running.signal();
            process.told_to_end = true;
        }
    }

    fn new_process(&self, service: &'static str) -> Result<Process> {
        let port = free_port();
        let mut arguments = vec!["serve".to_owned(), service.to_owned()];
        arguments.extend(SHORT.map(str::to_owned));
        arguments.extend(["--listen".to_owned(), format!("127.0.0.1:{port}")]);
        arguments.extend(self.place.iter().cloned());
        let log = std::env::temp_dir().join(format!("sagabus-faults-{}-{service}-{port}.log", std::process::id()));
        let borrowed: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let running = Service::start(&borrowed, log.clone());
        Ok(Process { service, port, arguments, log, running, lives: 1, told_to_end: false, deaths: 0 })
    }

    /// Restarts each process in good order, and waits for it before the next.
    pub(crate) async fn roll(&self) -> Result<()> {
        let processes = lock(&self.all).len(); // not in the loop's head, which would keep the lock
        for n in 0..processes {
            {
                let process = &mut lock(&self.all)[n];
                process.running.signal();
                process.told_to_end = true;
            }
            self.until("a process ends and starts again", |all| {
                let process = &mut all[n];
                if process.told_to_end && process.running.is_dead() {
                    process.start(&[]);
                }
                !process.told_to_end && process.has_started()
            })
            .await?;
        }
        Ok(())
    }

    /// Starts a service anew so that it dies when it reaches a step for the nth time, and waits until it does.
    pub(crate) async fn crash(&self, service: &str, step: CrashPoint, n: u64) -> Result<()> {
        let which = lock(&self.all).iter().position(|process| process.service == service).context("it runs")?;
        let at = format!("{step:?}:{n}");
        lock(&self.all)[which].running.signal();
        lock(&self.all)[which].told_to_end = true;
        let mut begun = false;
        self.until("a process dies at the step", |all| {
            let process = &mut all[which];
            let dead = process.running.is_dead();
            if dead && !begun {
                process.start(&["--crash-at", &at]);
                process.told_to_end = true;
                begun = true;
                return false;
            }
            dead
        })
        .await?;
        let died = lock(&self.all)[which].running.log();
        ensure!(died.contains("the process crashes here"), "{service} died of something else than {step:?}");
        Ok(())
    }

    async fn until(&self, what: &str, mut check: impl FnMut(&mut Vec<Process>) -> bool) -> Result<()> {
        let until = Instant::now() + tests::PATIENCE;
        while !check(&mut lock(&self.all)) {
            ensure!(Instant::now() < until, "{what}: not within {:?}", tests::PATIENCE);
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

fn lock(all: &Mutex<Vec<Process>>) -> MutexGuard<'_, Vec<Process>> {
    all.lock().unwrap_or_else(PoisonError::into_inner)
}
