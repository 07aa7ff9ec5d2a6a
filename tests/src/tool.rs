//! `sagabus`, the program itself, as tests run it: by user ann, on databases that are named.

use crate::process::program;
use serde_json::Value;
use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Output, Stdio},
};

/// The program with these arguments, for ann. Nothing of the test's environment names a database or a token.
pub fn command(urls: &[&str], arguments: &[&str]) -> Command {
    let mut command = Command::new(program("sagabus"));
    command.args(urls.iter().flat_map(|url| ["--database", url])).args(arguments);
    for variable in ["SAGABUS_DATABASE_URL", "SUDO_USER", "SAGABUS_DASHBOARD_TOKEN", "SAGABUS_DASHBOARD_VIEWER_TOKEN"] {
        command.env_remove(variable);
    }
    command.env("USER", "ann").stdin(Stdio::null());
    command
}

/// Runs it to its end: exit code, stdout, stderr.
///
/// # Panics
/// When the program cannot be started.
pub fn run(urls: &[&str], arguments: &[&str]) -> (i32, String, String) {
    said(&command(urls, arguments).output().expect("the program runs"))
}

/// Exit code, stdout, stderr.
///
/// # Panics
/// When it printed what is no text.
pub fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("it is text");
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// What was printed, as JSON.
///
/// # Panics
/// When it is anything else.
pub fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("JSON and nothing else was expected ({error}): {text}"))
}

/// The dashboard's process, ended when dropped.
#[derive(Debug)]
pub struct Served {
    process: Child,
    /// Its address and path, without a slash at the end.
    pub url: String,
}

impl Served {
    /// Starts it, and reads its address.
    ///
    /// # Panics
    /// When it does not start.
    pub fn by(mut command: Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).spawn().expect("the program runs");
        let mut line = String::new();
        let read = BufReader::new(process.stdout.take().expect("stdout is piped")).read_line(&mut line);
        let url = line.split_whitespace().next().unwrap_or_default().trim_end_matches('/').to_owned();
        assert!(read.is_ok() && url.starts_with("http://127.0.0.1:"), "an address was expected: {line:?}");
        Self { process, url }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill(); // it may have ended by itself
        let _ = self.process.wait();
    }
}
