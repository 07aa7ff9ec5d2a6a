//! Where the CPU time goes, read from /proc: whole processes, children included.

use std::{collections::HashMap, fs, path::Path, time::Duration};

/// The kernel counts in hundredths of a second (USER_HZ, see proc_pid_stat(5)).
const TICK: Duration = Duration::from_millis(10);

/// CPU time by now.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cpu {
    pub(crate) postgres: Duration,
    pub(crate) broker: Duration,
    /// This process and those that it started.
    pub(crate) own: Duration,
    /// Everything on the machine, those included.
    pub(crate) all: Duration,
}

impl Cpu {
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            postgres: self.postgres.saturating_sub(before.postgres),
            broker: self.broker.saturating_sub(before.broker),
            own: self.own.saturating_sub(before.own),
            all: self.all.saturating_sub(before.all),
        }
    }

    /// What other processes used meanwhile: the noise of the machine.
    pub(crate) fn foreign(self) -> Duration {
        self.all.saturating_sub(self.postgres + self.broker + self.own)
    }
}

/// The processes to watch. Those on another machine count as 0.
#[derive(Debug)]
pub(crate) struct Watch {
    postmaster: Option<u32>,
    broker: Option<u32>,
}

impl Watch {
    /// Finds the processes that listen on these ports of this machine.
    pub(crate) fn new(database_port: u16, broker_port: u16) -> Self {
        Self { postmaster: listener(database_port), broker: listener(broker_port) }
    }

    pub(crate) fn now(&self) -> Cpu {
        let processes = processes();
        // children that ended are in their parent's count
        let family = |parent: u32| {
            let of = |pid: &u32, p: &Process| (*pid == parent || p.parent == parent) as u64 * p.own_ticks;
            let waited = processes.get(&parent).map_or(0, |p| p.waited_ticks);
            waited + processes.iter().map(|(pid, process)| of(pid, process)).sum::<u64>()
        };
        let of = |pid: Option<u32>| pid.and_then(|pid| processes.get(&pid)).map_or(0, |process| process.own_ticks);
        Cpu {
            postgres: TICK * self.postmaster.map_or(0, family) as u32,
            broker: TICK * of(self.broker) as u32,
            own: TICK * family(std::process::id()) as u32,
            all: TICK * all_ticks() as u32,
        }
    }
}

/// CPU time of one process.
pub(crate) fn of_process(pid: u32) -> Duration {
    processes().get(&pid).map_or(Duration::ZERO, |process| TICK * process.own_ticks as u32)
}

/// Resident memory of a process in bytes.
pub(crate) fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[derive(Debug)]
struct Process {
    parent: u32,
    own_ticks: u64,
    waited_ticks: u64,
}

fn processes() -> HashMap<u32, Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let read = |path: &Path| {
        let pid = path.file_name()?.to_str()?.parse().ok()?;
        let stat = fs::read_to_string(path.join("stat")).ok()?;
        // the name in parentheses may contain anything
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |n: usize| fields.get(n).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        let process = Process {
            parent: fields.get(1)?.parse().ok()?,
            own_ticks: ticks(11) + ticks(12),
            waited_ticks: ticks(13) + ticks(14),
        };
        Some((pid, process))
    };
    entries.filter_map(|entry| read(&entry.path())).collect()
}

fn all_ticks() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().next().unwrap_or_default();
    let numbers: Vec<u64> = line.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    // user, nice, system, (idle, iowait), irq, softirq, steal
    [0, 1, 2, 5, 6, 7].iter().filter_map(|n| numbers.get(*n)).sum()
}

/// The process that listens on a TCP port.
fn listener(port: u16) -> Option<u32> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let inode = tables.iter().flat_map(|table| table.lines()).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let local = u16::from_str_radix(fields.get(1)?.rsplit_once(':')?.1, 16).ok()?;
        let listens = *fields.get(3)? == "0A";
        (local == port && listens).then(|| fields.get(9).map(|inode| format!("socket:[{inode}]")))?
    })?;
    let entries = fs::read_dir("/proc").ok()?.flatten();
    let holds = |path: &Path| {
        let files = fs::read_dir(path.join("fd")).into_iter().flatten().flatten();
        files.filter_map(|file| fs::read_link(file.path()).ok()).any(|link| link.as_os_str() == inode.as_str())
    };
    // children inherit it: the one with the lowest number is the first
    entries.filter(|entry| holds(&entry.path())).filter_map(|entry| entry.file_name().to_str()?.parse().ok()).min()
}
